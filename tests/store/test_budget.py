"""`--max-disk`: precompute stops cleanly before the store exceeds it."""

import pytest

from recycle_cli.errors import BarError
from recycle_cli.store import Store, info
from recycle_cli.store.budget import bytes_below
from tests.contents import contents
from tests.records import records, write_csv

from .corpora import Corpus


def test_it_stops_before_it_is_passed_and_keeps_what_was_sealed(tmp_path):
    corpus = Corpus(shape=(512,))
    store = corpus.store(tmp_path / "s.zarr")

    def fill():
        with store.writer(segment_bytes=100_000, max_disk=400_000) as writer:
            for number in range(1000):
                corpus.append(writer, [number])

    with pytest.raises(BarError, match="--max-disk 400000"):
        fill()
    store.refresh()
    assert 20 < len(store) < 1000
    corpus.check(store, range(len(store)))
    assert 250_000 < bytes_below(tmp_path / "s.zarr") <= 400_000


@pytest.mark.parametrize(
    ("corpus", "codec"),
    [
        (Corpus("int8", longest=1), "none"),
        (Corpus("int8", cuts=tuple("0123456789")), "none"),
        (Corpus("int8", cuts=tuple("0123456789")), "lz4"),
        (Corpus("float32", shape=(1,), longest=1), "zstd"),
    ],
    ids=["small rows", "scales", "scales and a codec", "small rows and a codec"],
)
def test_what_comes_with_the_rows_is_counted(tmp_path, monkeypatch, corpus, codec):
    """Count keys, digests, offsets and the index, which outweigh the rows of small samples, and scales of many rows."""
    monkeypatch.setattr("recycle_cli.store.indexfile.PERSIST_SAMPLES", 100)
    store = corpus.store(tmp_path / "s.zarr")

    def fill():
        with store.writer(max_disk=600_000, codec=codec) as writer:
            for number in range(0, 20_000, 250):
                corpus.append(writer, range(number, number + 250))

    with pytest.raises(BarError, match="--max-disk 600000"):
        fill()
    store = Store.open(store.path)  # opening it writes the index
    assert len(list((tmp_path / "s.zarr/index").iterdir())) == 2
    corpus.check(store, range(0, len(store), 97))
    assert 300_000 < bytes_below(tmp_path / "s.zarr") <= 600_000


def test_the_command_says_so_and_goes_on_with_more(recycle, tiny_bert, tmp_path):
    data, store, limit = write_csv(tmp_path / "data.csv", records(400, longest=20)), tmp_path / "s.zarr", 250_000
    shape = ("--cut", 2, "--cut", "75%", "--dtype", "int8", "--codec", "zstd", "--max-length", 24)
    filling = ("--model", tiny_bert, *shape, "--batch-tokens", 1, "--segment-bytes", 40_000)
    recycle.json("precompute", data, tmp_path / "whole.zarr", *filling)
    whole = contents(tmp_path / "whole.zarr")
    held = 0
    for _ in range(2):
        stopped = recycle("precompute", data, store, *filling, "--max-disk", limit, "--json")
        assert stopped.code == 6
        assert stopped.json["error"]["kind"] == "BarError"
        (line,) = stopped.err.splitlines()
        assert f"the next rows would exceed --max-disk {limit}" in line
        assert "what was sealed before is usable" in line
        assert limit / 2 < bytes_below(store) <= limit
        found = contents(store)
        assert held <= len(found) < len(whole)
        held = len(found)
        assert found.items() <= whole.items()
        assert recycle.json("store", "verify", store)["damaged"] == []
        assert (info(str(store))["writers"], info(str(store))["leftovers"]) == ([], [])
    assert held > 100
    done = recycle.json("precompute", data, store, *filling, "--max-disk", "4MB")
    assert (done["reused_samples"], done["new_samples"]) == (held, 400 - held)
    assert contents(store) == whole
