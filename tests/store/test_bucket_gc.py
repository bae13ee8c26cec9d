"""What gc removes in a bucket: what nobody can be writing, by the server's clock, and no segment."""

from datetime import UTC, datetime, timedelta

import pytest

from recycle_cli.errors import StorageError
from recycle_cli.store import gc, info, verify
from recycle_cli.store.liveness import Writer

from .corpora import Corpus

obstore = pytest.importorskip("obstore")

from recycle_cli.store.remote import RemotePlace  # noqa: E402 - needs obstore


def objects(url):
    return RemotePlace(url)._store


def test_gc_of_a_bucket_removes_uploads_given_up_and_nothing_else(memory, monkeypatch):
    corpus = Corpus()
    store = corpus.store(memory, range(10), segment_bytes=100)
    obstore.put(objects(memory), "segments/20260101T000000000000-0123456789ab/keys/c.0.0", bytes(100))
    obstore.put(objects(memory), "segments/20260101T000000000000-0123456789ab/cuts/2/values/c.0.0", bytes(50))
    assert gc(memory)["leftovers"] == 0  # its writer may be at work
    monkeypatch.setattr(RemotePlace, "_clock", lambda place: datetime.now(UTC) + timedelta(days=1.01))
    monkeypatch.setattr("recycle_cli.store.remote.datetime", None)  # this machine's clock has no say
    monkeypatch.setattr(RemotePlace, "unfinished", lambda place: [Writer(name, False, None, 0) for name in names])
    names = [*store.place.segment_names(), "20260101T000000000000-0123456789ab"]
    planned = gc(memory, dry_run=True)
    found = gc(memory)
    assert {**planned, "seconds": 0} == {**found, "seconds": 0}
    assert (found["leftovers"], found["leftover_bytes"], found["freed_bytes"]) == (1, 150, 150)
    assert not store.place.listing("20260101T000000000000-0123456789ab")
    store.refresh()
    corpus.check(store, range(10))


def test_the_clock_of_a_bucket_leaves_nothing_there(memory):
    place = Corpus().store(memory).place
    assert abs((place._clock() - datetime.now(UTC)).total_seconds()) < 60
    assert not [meta for meta in place._listed("tmp/") if not meta["path"].endswith("zarr.json")]


def test_gc_of_a_bucket_removes_what_was_set_aside(memory):
    store = Corpus().store(memory, range(10), segment_bytes=100)
    obstore.put(objects(memory), f"segments/{store.segments[0].id}/keys/c.0.0", bytes(3))
    verify(memory, repair=True)
    assert gc(memory)["set_aside"] == 0
    assert gc(memory, damaged=True)["set_aside"] == 1
    assert info(memory)["set_aside"] == []


def test_an_upload_that_was_removed_meanwhile_is_not_sealed(memory, monkeypatch):
    monkeypatch.setattr("recycle_cli.store.remote.LONG_UPLOAD_SECONDS", -1.0)
    corpus = Corpus()
    store = corpus.store(memory, range(10))  # all is there
    put = RemotePlace._put

    def removing(place, name, data):
        put(place, name, data)
        if name.endswith("digests/zarr.json"):
            obstore.delete(objects(memory), name)

    monkeypatch.setattr(RemotePlace, "_put", removing)
    with pytest.raises(StorageError, match="removed while it was uploaded"):
        corpus.store(memory, range(10, 20))
    monkeypatch.undo()
    store.refresh()
    assert len(store) == 10
    assert verify(memory)["damaged"] == []
