import numpy as np
import pytest

from recycle_cli.recipe import has_scales
from recycle_cli.runtime.memory import free_memory
from recycle_cli.store import Store
from recycle_cli.store.chunked import ChunkedRows

from .corpora import Corpus

NUMBERS = range(120)


@pytest.fixture
def decodes(monkeypatch):
    """Count how often each chunk is decoded."""
    seen = []
    decode = ChunkedRows._decode
    monkeypatch.setattr(ChunkedRows, "_decode", lambda rows, frame, out: (seen.append(1), decode(rows, frame, out))[1])
    return seen


def chunks(store):
    return sum(segment.specs["cuts/2/values"].chunks for segment in store.segments)


@pytest.mark.parametrize("codec", ["none", "lz4"])
@pytest.mark.parametrize("dtype", ["float16", "int8", "int4"])
@pytest.mark.parametrize("memory", [None, 4 << 20, 400_000])
def test_an_epoch_holds_every_sample_once_with_its_rows(tmp_path, monkeypatch, codec, dtype, memory):
    monkeypatch.setattr("recycle_cli.store.layout.CHUNK_BYTES", 8192)
    corpus = Corpus(dtype, shape=(64,), longest=90)
    store = corpus.store(tmp_path / "s.zarr", NUMBERS, segment_bytes=150_000, codec=codec)
    numbers = dict(zip(store.lookup(*corpus.keys(NUMBERS)).tolist(), NUMBERS, strict=True))
    seen = []
    count = ragged = 0
    for window in store.windows("2", np.array(list(numbers)), memory=memory, seed=3, batch_size=8):
        count += 1
        ragged += len(window) % 8 != 0
        for start in range(0, len(window), 8):
            positions = window.positions[start : start + 8]
            lengths = window.lengths[start : start + 8]
            out, scales = window.gather(positions)
            assert out.shape == (len(positions), max(lengths), 36 if dtype == "int4" else 64)
            assert (scales is not None) == has_scales(dtype)
            flat, flat_scales = window.gather_rows(positions)
            assert len(flat) == lengths.sum()
            for slot, position in enumerate(positions.tolist()):
                expected = corpus.encoded(numbers[position], "2")
                np.testing.assert_array_equal(out[slot, : lengths[slot]], expected.values)
                assert not out[slot, lengths[slot] :].any()
                if has_scales(dtype):
                    np.testing.assert_array_equal(scales[slot, : lengths[slot]], expected.scales)
            if has_scales(dtype):
                np.testing.assert_array_equal(flat_scales[: lengths[0]], scales[0, : lengths[0]])
        seen += window.positions.tolist()
    assert sorted(seen) == sorted(numbers)
    assert seen != sorted(seen)
    assert (count == 1) == (memory != 400_000)
    assert ragged <= 1  # only the last window


def test_every_chunk_is_decoded_once_where_segments_fit(tmp_path, monkeypatch, decodes):
    monkeypatch.setattr("recycle_cli.store.layout.CHUNK_BYTES", 8192)
    corpus = Corpus(shape=(64,), longest=90)
    store = corpus.store(tmp_path / "s.zarr", NUMBERS, segment_bytes=60_000, codec="lz4")
    decodes.clear()
    memory = 8 * 2 * 150_000
    count = sum(1 for _ in store.windows("2", store.positions(), memory=memory, seed=0))
    assert count >= 1
    assert len(decodes) == chunks(store) > 20


def test_a_segment_beyond_the_budget_is_read_in_parts(tmp_path, monkeypatch, decodes):
    monkeypatch.setattr("recycle_cli.store.layout.CHUNK_BYTES", 4096)
    corpus = Corpus(shape=(64,), longest=90)
    store = corpus.store(tmp_path / "s.zarr", NUMBERS, codec="lz4")
    decodes.clear()
    assert len(list(store.windows("2", store.positions(), memory=800_000, seed=0))) > 1
    assert chunks(store) <= len(decodes) <= chunks(store) * 1.25


def test_a_few_samples_read_few_chunks(tmp_path, monkeypatch, decodes):
    monkeypatch.setattr("recycle_cli.store.layout.CHUNK_BYTES", 4096)
    corpus = Corpus(shape=(64,), longest=90)
    store = corpus.store(tmp_path / "s.zarr", NUMBERS, codec="lz4")
    decodes.clear()
    positions = store.lookup(*corpus.keys([5, 100]))
    (window,) = store.windows("2", positions, memory=None, seed=0)
    assert len(decodes) < 12 < chunks(store)
    np.testing.assert_array_equal(window.gather_rows(positions[:1])[0], corpus.encoded(5, "2").values)


def test_the_order_follows_from_the_seed(tmp_path):
    corpus = Corpus(shape=(64,), longest=90)
    store = Store.open(corpus.store(tmp_path / "s.zarr", NUMBERS, segment_bytes=50_000, codec="lz4").path)

    def order(seed):
        epoch = store.windows("2", store.positions(), memory=600_000, seed=seed, batch_size=4)
        return np.concatenate([window.positions for window in epoch]).tolist()

    assert order([1, 2]) == order([1, 2])
    assert order([1, 2]) != order([1, 3])


def test_no_samples_are_no_windows(tmp_path, corpus):
    store = corpus.store(tmp_path / "s.zarr", range(3))
    assert list(store.windows("2", store.positions()[:0], memory=1 << 20, seed=0)) == []


def test_only_uncompressed_stores_are_mapped(tmp_path, corpus):
    assert corpus.store(tmp_path / "s.zarr", range(3)).is_mapped("2")
    assert not corpus.store(tmp_path / "s.zarr", range(3, 6), codec="lz4").is_mapped("2")


def test_windows_are_for_what_is_not_mapped_or_does_not_fit(tmp_path, corpus, monkeypatch):
    store = corpus.store(tmp_path / "s.zarr", range(3))
    assert not store.prefers_windows("2")
    monkeypatch.setattr("recycle_cli.store.store.free_memory", lambda: 100)
    assert store.prefers_windows("2")
    assert free_memory() > 1 << 20
    monkeypatch.undo()
    assert corpus.store(tmp_path / "s.zarr", range(3, 6), codec="lz4").prefers_windows("2")
