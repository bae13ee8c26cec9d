"""Stores with seals and checksums that fit, but with content that our writer never writes."""

import json
import struct
from pathlib import Path

import google_crc32c
import numpy as np
import pytest

from recycle_cli.batches import StoredRows, widened
from recycle_cli.errors import DamageError
from recycle_cli.recipe import canonical_json
from recycle_cli.store import Store, gc, info, verify
from recycle_cli.store.files import write_file
from recycle_cli.store.layout import sealed

from .corpora import Corpus

NUMBERS = range(12)
VALUES, SCALES = "cuts/2/values/c.0.0", "cuts/2/scales/c.0"


@pytest.fixture
def corpus():
    return Corpus("int8", shape=(64,), longest=300)


@pytest.fixture(params=["none", "zstd"])
def store(corpus, tmp_path, request, monkeypatch):
    monkeypatch.setattr("recycle_cli.store.layout.CHUNK_BYTES", 4096)
    return corpus.store(tmp_path / "s.zarr", NUMBERS, codec=request.param)


def folder_of(store):
    (segment,) = store.segments
    return Path(segment.where())


def replace(store, name, content):
    """Replace the bytes of a file of the one segment, and update its record."""
    folder = folder_of(store)
    (folder / name).unlink()
    document = json.loads((folder / "zarr.json").read_text())
    record = document["attributes"]["recycle"]
    record["files"][name] = write_file(folder / name, content)
    record["bytes"] = sum(file["bytes"] for file in record["files"].values())
    del record["seal"]
    (folder / "zarr.json").write_text(canonical_json(sealed(document)))


def content_of(store, name, dtype=np.uint8):
    return np.fromfile(folder_of(store) / name, dtype)


def named(store):
    (damage,) = verify(store.path)["damaged"]
    return damage["file"], damage["problem"]


def reading_refuses(store, corpus, match):
    with pytest.raises(DamageError, match=match) as caught:
        corpus.check(Store.open(store.path), NUMBERS)
    assert "\n" not in str(caught.value)


def test_numbers_that_are_none_are_named(store):
    scales = content_of(store, SCALES, "<f4")
    scales[5] = np.nan
    replace(store, SCALES, scales)
    assert named(store)[0] == SCALES
    assert "NaN or infinity in rows" in named(store)[1]


def test_infinite_rows_are_named(tmp_path):
    corpus = Corpus("bfloat16")
    store = corpus.store(tmp_path / "s.zarr", NUMBERS)
    values = content_of(store, VALUES, "<u2")
    values[9] = 0x7F80
    replace(store, VALUES, values)
    assert named(store) == (VALUES, f"NaN or infinity in rows 0 to {store.rows}")


@pytest.mark.parametrize("wrong", [127, 128, 255])
def test_scales_of_groups_that_are_no_numbers_are_named(tmp_path, wrong):
    corpus = Corpus("int4", shape=(40,))
    store = corpus.store(tmp_path / "s.zarr", NUMBERS)
    values = content_of(store, VALUES)
    values[7 * 27 - 1] = wrong  # three groups a row: 24 bytes of codes, then 3 of scales
    replace(store, VALUES, values)
    assert named(store) == (VALUES, f"NaN or infinity in rows 0 to {store.rows}")
    batch = StoredRows.of(store, "2", store.positions()).load(np.arange(len(store)))
    assert np.isfinite(widened(batch).numpy()).all()


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_scales_that_make_rows_infinite_are_named(tmp_path, dtype):
    store = Corpus(dtype).store(tmp_path / "s.zarr", NUMBERS)
    scales = content_of(store, SCALES, "<f4")
    scales[3] = 1e38
    replace(store, SCALES, scales)
    assert named(store) == (SCALES, f"NaN or infinity in rows 0 to {store.rows}")


def test_a_key_twice_in_a_segment_counts_once_and_is_collected(store, corpus):
    for name in ("keys/c.0.0", "digests/c.0.0"):
        rows = content_of(store, name).reshape(-1, 16)
        rows[7] = rows[3]
        replace(store, name, rows)
    store = Store.open(store.path)
    assert len(store) == len(store.positions()) == 11
    corpus.check(store, [number for number in NUMBERS if number != 7])
    assert info(store.path)["duplicates"] == gc(store.path)["duplicates"] == 1
    assert info(store.path)["duplicates"] == 0


@pytest.mark.parametrize("length", [11, 13])
@pytest.mark.parametrize("name", ["keys", "digests"])
def test_keys_of_another_length_are_refused(store, corpus, name, length):
    rows = np.resize(content_of(store, f"{name}/c.0.0").reshape(-1, 16), (length, 16))
    replace(store, f"{name}/c.0.0", rows)
    reading_refuses(store, corpus, f"{name}/c.0.0: {length * 16} bytes, 192 were sealed")
    assert verify(store.path)["damaged"]


@pytest.mark.parametrize("length", [11, 13])
@pytest.mark.parametrize("name", ["keys", "digests"])
def test_keys_of_another_length_are_refused_though_their_metadata_says_so_too(store, corpus, name, length):
    folder = folder_of(store)
    document = json.loads((folder / "zarr.json").read_text())
    array = document["consolidated_metadata"]["metadata"][name]
    array["shape"][0] = array["chunk_grid"]["configuration"]["chunk_shape"][0] = length
    (folder / "zarr.json").write_text(json.dumps(document))
    replace(store, f"{name}/zarr.json", canonical_json(array).encode())
    replace(store, f"{name}/c.0.0", np.resize(content_of(store, f"{name}/c.0.0").reshape(-1, 16), (length, 16)))
    reading_refuses(store, corpus, rf"{name}: \(\({length}, 16\), '\|u1'\) found, \(\(12, 16\), '\|u1'\) expected")
    assert verify(store.path)["damaged"]


def shard_index(store):
    """(offset, size) of the chunks, and the offset of the index."""
    content = content_of(store, VALUES)
    chunks = store.segments[0].specs["cuts/2/values"].chunks
    begin = len(content) - 16 * chunks - 4
    return content, content[begin:-4].view("<u8").reshape(-1, 2), begin


def with_index(content, entries, begin):
    index = entries.astype("<u8").tobytes()
    return content[:begin].tobytes() + index + google_crc32c.value(index).to_bytes(4, "little")


def test_chunks_that_overlap_are_refused(store, corpus):
    """Otherwise a small file could decode to any number of chunks."""
    content, entries, begin = shard_index(store)
    assert len(entries) > 3
    entries[:] = entries[0]
    replace(store, VALUES, with_index(content, entries, begin))
    if store.is_mapped("2"):  # mapped reads ignore the index, but other readers use it
        corpus.check(Store.open(store.path), NUMBERS)
        assert named(store) == (VALUES, "the shard's index does not say that its chunks lie in order")
    else:
        reading_refuses(store, corpus, "chunks overlap")
        assert verify(store.path)["damaged"]


@pytest.mark.parametrize("store", ["zstd"], indirect=True)
@pytest.mark.parametrize("size", [0, 4095, 1 << 30, (1 << 32) - 1])
def test_a_chunk_that_claims_another_size_is_refused(store, corpus, size):
    content, entries, _ = shard_index(store)
    struct.pack_into("<I", content, int(entries[1, 0]) + 4, size)
    replace(store, VALUES, content)
    reading_refuses(store, corpus, "decodes to")
    assert verify(store.path)["damaged"]


class Flat(Corpus):
    """Rows that compress, so that chunks are not mere copies."""

    def rows(self, number, cut):
        return np.full((self.length(number), *self.shape), number + 1, np.float32)


def test_a_chunk_that_does_not_decode_is_refused(tmp_path):
    corpus = Flat("int8", shape=(64,), longest=300)
    store = corpus.store(tmp_path / "s.zarr", NUMBERS, codec="zstd")
    content, entries, _ = shard_index(store)
    content[int(entries[0, 0]) + 16 : int(entries[0].sum())] = 255
    replace(store, VALUES, content)
    reading_refuses(store, corpus, "does not decode")
    assert "does not decode" in named(store)[1]


@pytest.mark.parametrize("harm", ["unsorted", "beyond", "negative", "twice", "zeros"])
def test_a_wrong_index_hides_samples_and_never_gives_other_rows(corpus, tmp_path, monkeypatch, harm):
    monkeypatch.setattr("recycle_cli.store.indexfile.PERSIST_SAMPLES", 5)
    store = corpus.store(tmp_path / "s.zarr", NUMBERS)
    (folder,) = (path for path in (tmp_path / "s.zarr/index").iterdir() if path.is_dir())
    name = "high" if harm == "unsorted" else "positions"
    array = np.fromfile(folder / name / "c.0", "<u8" if name == "high" else "<i8")
    array[:] = {
        "unsorted": lambda: array[::-1].copy(),
        "beyond": lambda: array + (1 << 60),
        "negative": lambda: -1 - array,
        "twice": lambda: array[0],
        "zeros": lambda: 0,
    }[harm]()
    array.tofile(folder / name / "c.0")
    store = Store.open(store.path)
    found = store.lookup(*corpus.keys(NUMBERS))
    corpus.check(store, [number for number, position in zip(NUMBERS, found, strict=True) if position >= 0])
    assert (found < 0).any()
    if harm != "unsorted":
        with pytest.raises(DamageError, match="index does not fit"):
            store.positions()
    corpus.store(store.path, range(12, 30))  # writers and gc must not trust it either
    gc(store.path)
    assert verify(store.path, repair=True)["damaged"] == [] or verify(store.path)["damaged"] == []
    corpus.check(Store.open(store.path), range(30))
