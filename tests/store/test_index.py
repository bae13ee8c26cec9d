import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from recycle_cli.store import Store, indexfile
from recycle_cli.store.index import search

from .corpora import Corpus


@pytest.fixture
def indexed(tmp_path, corpus, monkeypatch):
    monkeypatch.setattr(indexfile, "PERSIST_SAMPLES", 10)
    return corpus.store(tmp_path / "s.zarr", range(40), segment_bytes=300)


@pytest.mark.parametrize("count", [0, 1, 100, 129, 5000])
@pytest.mark.parametrize("spread", ["even", "low", "steps", "ends"])
def test_search_agrees_with_searchsorted(count, spread):
    rng = np.random.default_rng(count)
    keys = rng.integers(0, 2**64, count, np.uint64)
    if spread == "low":
        keys >>= np.uint64(40)
    elif spread == "steps":
        keys = keys >> np.uint64(58) << np.uint64(58)
    elif spread == "ends":
        keys = np.where(keys % np.uint64(2), keys >> np.uint64(50), ~(keys >> np.uint64(50)))
    high = np.sort(keys)
    ends = np.array([0, 2**64 - 1], np.uint64)
    wanted = np.concatenate([keys, keys + np.uint64(1), rng.integers(0, 2**64, 300, np.uint64), ends])
    np.testing.assert_array_equal(search(high, wanted), np.searchsorted(high, wanted))


def folders(store):
    return [path for path in (Path(store.path) / "index").iterdir() if path.is_dir()]


def test_opening_maps_the_index_and_opens_no_segment(indexed, monkeypatch):
    monkeypatch.setattr("recycle_cli.store.segment.loads", None)
    store = Store.open(indexed.path)
    assert len(store) == 40
    assert store.rows == indexed.rows


def test_new_segments_are_added_and_merged(indexed, corpus):
    before = folders(indexed)
    corpus.store(indexed.path, range(35, 45))
    assert folders(indexed) == before
    corpus.check(Store.open(indexed.path), range(45))
    corpus.store(indexed.path, range(45, 90))
    (after,) = folders(indexed)
    assert [after] != before
    store = Store.open(indexed.path)
    assert len(store) == 90
    assert len(store._delta) == 0
    corpus.check(store, range(90))


def test_a_removed_segment_outdates_the_index(indexed, corpus):
    segment = indexed._segments.list[0]
    lost = segment.summary.samples
    shutil.rmtree(Path(segment.where()))
    store = Store.open(indexed.path)
    assert len(store) == 40 - lost
    corpus.check(store, range(lost, 40))
    assert store.lookup(*corpus.keys([0])).tolist() == [-1]


@pytest.mark.parametrize("harm", ["document", "sizes", "positions", "order"])
def test_a_damaged_index_gives_no_wrong_rows(indexed, corpus, harm):
    (folder,) = folders(indexed)
    if harm == "document":
        document = json.loads((folder / "zarr.json").read_text())
        document["attributes"]["recycle"]["keys"] = 39
        (folder / "zarr.json").write_text(json.dumps(document))
    elif harm == "sizes":
        (folder / "high/c.0").write_bytes(b"1234567")
    else:
        path = folder / {"positions": "positions", "order": "high"}[harm] / "c.0"
        path.write_bytes(np.random.default_rng(0).permutation(np.fromfile(path, "<u8")).tobytes())
    store = Store.open(indexed.path)
    found = store.lookup(*corpus.keys(range(40)))
    if harm in ("document", "sizes"):
        assert (found >= 0).all()
    for number in np.flatnonzero(found >= 0).tolist():
        np.testing.assert_array_equal(store.read("2", found[number]), corpus.encoded(number, "2").values)


def test_positions_in_the_index_that_overrun_are_misses(indexed, corpus):
    (folder,) = folders(indexed)
    (folder / "positions/c.0").write_bytes(np.full(40, 1 << 60, "<i8").tobytes())
    assert (Store.open(indexed.path).lookup(*corpus.keys(range(40))) == -1).all()


def test_a_store_that_cannot_be_written_is_indexed_in_memory(tmp_path, monkeypatch):
    corpus = Corpus()
    corpus.store(tmp_path / "s.zarr", range(30))
    monkeypatch.setattr(indexfile, "PERSIST_SAMPLES", 10)
    shutil.rmtree(tmp_path / "s.zarr/tmp")
    store = Store.open(str(tmp_path / "s.zarr"))
    assert not folders(store)
    corpus.check(store, range(30))
