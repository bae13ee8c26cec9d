"""A store of many segments: a bucket is asked little, and many at a time; a process needs few maps."""

import os
import sys
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from recycle_cli.errors import StorageError
from recycle_cli.store import Store, gc, index, merge, verify
from recycle_cli.store import rewrite as module
from recycle_cli.store.files import storage_errors
from recycle_cli.store.segment import Segment

from .corpora import Corpus

obstore = pytest.importorskip("obstore")

from recycle_cli.store.remote import RemotePlace  # noqa: E402 - needs obstore


@pytest.fixture
def requests(monkeypatch):
    """Requests to buckets from here on, by kind."""
    counts = Counter()

    def counted(kind, call):
        def counting(*arguments, **options):
            counts[kind] += 1
            return call(*arguments, **options)

        return counting

    for kind in ("get", "get_range", "head", "list", "list_with_delimiter", "put"):
        monkeypatch.setattr(obstore, kind, counted(kind, getattr(obstore, kind)))
    return counts


def test_opening_asks_for_two_objects_of_a_segment(memory, requests):
    corpus = Corpus()
    corpus.store(memory, range(30), batch=1, segment_bytes=1)
    requests.clear()
    store = Store.open(memory, corpus.recipe)
    assert len(store.segments) == len(store) == 30
    assert requests["get"] <= 2 * 30 + 3
    assert requests["head"] == requests["get_range"] == 0
    corpus.check(store, range(30))


def test_segments_of_a_bucket_are_read_at_the_same_time(memory, monkeypatch):
    """No document comes before four are on their way."""
    corpus, get, together = Corpus(), obstore.get, threading.Barrier(4, timeout=30)
    corpus.store(memory, range(32), batch=1, segment_bytes=1)

    def waiting(target, name):
        if name.startswith("segments/") and name.endswith("zarr.json"):
            together.wait()
        return get(target, name)

    monkeypatch.setattr(obstore, "get", waiting)
    assert len(Store.open(memory, corpus.recipe)) == 32


def test_a_refresh_asks_for_what_is_new_alone(memory, requests):
    corpus = Corpus()
    store = corpus.store(memory, range(30), batch=1, segment_bytes=1)
    writer = Store.open(memory, corpus.recipe)
    requests.clear()
    store.refresh()
    assert requests == {"list_with_delimiter": 1}
    with writer.writer(segment_bytes=1) as appending:
        for number in (30, 31, 5):
            corpus.append(appending, [number])
    obstore.put(RemotePlace(memory)._store, "segments/20260101T000000000000-0123456789ab/keys/c.0.0", bytes(100))
    requests.clear()
    store.refresh()
    assert requests["list"] == 0
    assert requests["get"] <= 2 * 3 + 2  # and the keys of the two that are equal
    assert (len(store), len(store.segments)) == (32, 33)
    corpus.check(store, range(32))


def test_a_segment_that_is_sealed_after_it_was_seen_unsealed_is_found(memory, monkeypatch):
    corpus = Corpus()
    store, put, during = corpus.store(memory, range(5)), RemotePlace._put, []

    def looking(place, name, data):
        if name.startswith("segments/") and name.count("/") == 2:
            store.refresh()
            during.append(len(store))
        put(place, name, data)

    monkeypatch.setattr(RemotePlace, "_put", looking)
    corpus.store(memory, range(5, 9))
    assert during == [5]
    store.refresh()
    corpus.check(store, range(9))


def test_segments_set_aside_here_are_gone_here(memory):
    corpus = Corpus()
    store = corpus.store(memory, range(30), segment_bytes=300)
    obstore.put(RemotePlace(memory)._store, f"segments/{store.segments[0].id}/keys/c.0.0", bytes(3))
    before = len(store.segments)
    verify(memory, repair=True)
    again = Store.open(memory)
    assert len(again.segments) == before - 1
    assert again.place.segment_names() == again.place.segment_names()


def test_many_segments_leave_no_maps_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(index, "MANY", 8)
    corpus = Corpus()
    corpus.store(tmp_path / "s.zarr", range(40), batch=1, segment_bytes=1)
    store = Store.open(str(tmp_path / "s.zarr"), corpus.recipe)
    assert len(store.segments) == 40
    assert not [segment for segment in store.segments if {"keys", "document", "record"} & vars(segment).keys()]
    corpus.check(store, range(40))
    assert gc(store.path)["removed"] == 40
    store.refresh()
    corpus.check(store, range(40))


def test_gc_merges_segments_into_larger_ones_than_they_were_sealed_as(tmp_path, recycle):
    corpus = Corpus()
    path = corpus.store(tmp_path / "s.zarr", range(40), segment_bytes=300).path
    before = len(Store.open(path).segments)
    sizes = [segment.summary.bytes for segment in Store.open(path).segments]
    assert recycle.json("store", "gc", path, "--segment-bytes", min(sizes))["removed"] == 0
    assert recycle.json("store", "gc", path, "--segment-bytes", 16 * max(sizes))["removed"] == before > 2
    store = Store.open(path)
    assert len(store.segments) < before / 2
    corpus.check(store, range(40))


@pytest.mark.parametrize("command", ["gc", "merge"])
def test_what_was_copied_does_not_stay_mapped(tmp_path, monkeypatch, command):
    corpus, copying, maps = Corpus(), module.copy_samples, []
    path = corpus.store(tmp_path / "s.zarr", range(40), batch=1, segment_bytes=1).path

    def counting(*arguments):
        copying(*arguments)
        maps.append(Path("/proc/self/maps").read_text().count(f"{path}/segments/"))

    for name in ("rewrite", "merge"):
        monkeypatch.setattr(sys.modules[f"recycle_cli.store.{name}"], "copy_samples", counting)
    monkeypatch.setattr(index, "MANY", 8)
    if command == "gc":
        assert gc(path)["removed"] == 40
    else:
        assert merge(path, str(tmp_path / "into.zarr"))["added"] == 40
    assert len(maps) == 40
    assert max(maps) <= 4
    corpus.check(Store.open(path), range(40))


def test_too_many_maps_are_told_with_the_remedy():
    with pytest.raises(StorageError, match=r"max_map_count"), storage_errors("acts.zarr"):
        raise OSError(12, os.strerror(12))


def test_fetching_reads_what_the_properties_read(memory):
    corpus = Corpus()
    store = corpus.store(memory, range(10))
    (one,) = store.segments
    fetched = Segment(store.place, one.id, store.fingerprint, store.recipe.dtype)
    for name in ("keys", "digests"):
        fetched.fetch(name)
        np.testing.assert_array_equal(getattr(fetched, name), getattr(one, name))
    fetched.forget("keys")
    np.testing.assert_array_equal(fetched.keys, one.keys)
