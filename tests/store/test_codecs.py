import numpy as np
import pytest
import zarr

from recycle_cli.errors import DamageError, UsageError
from recycle_cli.recipe import DTYPES
from recycle_cli.store import Store
from recycle_cli.store.codecs import choose, compress, compressor, decompress, is_allowed

from .corpora import Corpus


@pytest.mark.parametrize("codec", ["none", "lz4", "zstd", "auto"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_codec_gives_the_rows_back(tmp_path, codec, dtype):
    corpus = Corpus(dtype, shape=(64,), longest=900)
    store = corpus.store(tmp_path / "s.zarr", range(30), segment_bytes=200_000, codec=codec)
    corpus.check(Store.open(store.path), range(30))
    values = zarr.open_group(store.path, mode="r")[f"segments/{store.segments[0].id}/cuts/2/values"][...]
    np.testing.assert_array_equal(values, store.segments[0].values("2")[0 : len(values)])


def test_segments_of_different_codecs_share_a_store(tmp_path, corpus):
    for number, codec in enumerate(["none", "lz4", "zstd"]):
        store = corpus.store(tmp_path / "s.zarr", range(number * 10, number * 10 + 10), codec=codec)
    corpus.check(store, range(30))


def test_auto_compresses_only_where_it_pays():
    noise = np.random.default_rng(0).standard_normal((4000, 64)).astype("<f2")
    assert choose(noise).codec == "none"
    assert choose(np.round(noise)).codec in ("lz4", "zstd")
    assert "saves" in choose(noise).reason


def test_an_unknown_codec_is_refused(tmp_path, corpus):
    store = corpus.store(tmp_path / "s.zarr")
    with pytest.raises(UsageError, match="gzip"):
        store.writer(codec="gzip")


@pytest.mark.parametrize(
    "change", [{"cname": "blosclz"}, {"typesize": 4}, {"clevel": 10}, {"shuffle": "magic"}, {"extra": 1}]
)
def test_codecs_off_the_list_are_refused(change):
    document = compressor("lz4", 2)
    assert is_allowed(document, 2)
    assert not is_allowed({**document, "configuration": {**document["configuration"], **change}}, 2)
    assert not is_allowed({**document, "name": "numcodecs.pickle"}, 2)
    assert not is_allowed("gzip", 2)


def test_a_frame_that_lies_about_its_size_is_damage():
    rows = np.arange(4096, dtype="<u2")
    frame = bytearray(compress(rows, compressor("lz4", 2)))
    out = np.empty_like(rows)
    decompress(frame, out, "here")
    np.testing.assert_array_equal(out, rows)
    for offset, value in ((4, 1 << 30), (12, 1 << 30), (4, 0), (0, 99)):
        bad = frame.copy()
        bad[offset : offset + 4] = value.to_bytes(4, "little") if offset else bytes([99]) + bad[1:4]
        with pytest.raises(DamageError, match="here"):
            decompress(bad, out, "here")
    with pytest.raises(DamageError):
        decompress(frame[:7], out, "here")
