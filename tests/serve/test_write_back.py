"""Write-back: what was computed is found again, within the bytes that are allowed, whatever happens to the process."""

import json
import signal
import threading
import time
from itertools import count
from pathlib import Path
from shutil import copytree

import httpx2
import numpy as np
import pytest

from recycle_cli.errors import DataError, UsageError
from recycle_cli.keys import Sample, keys_of
from recycle_cli.scorer import scorer
from recycle_cli.serve.jobs import Memory
from recycle_cli.settings import ServeSettings
from recycle_cli.store import EncodedRows, SegmentWriter, Store, verify
from tests.contents import contents
from tests.records import records
from tests.serve.conftest import HELD, OTHERS
from tests.serve.servers import serving
from tests.serve.test_process import command

OTHER_TEXTS = [record["text"] for record in OTHERS]
MANY = [record["text"] for record in records(400, seed=9)]
KEEPING = ServeSettings(write_back=True, seal_seconds=0.2, memory=1)


@pytest.fixture
def store(subject, tmp_path):
    return str(copytree(subject.store, tmp_path / "store"))


def embed(server, texts, **more):
    answer = server.post("/v1/embeddings", {"model": "similar", "input": texts}, **more)
    assert answer.status_code == 200, answer.text
    return np.array([one["embedding"] for one in answer.json()["data"]])


def held(path, texts):
    """How many of the texts a store holds."""
    return int((Store.open(path).lookup(*keys_of([Sample("", {"text": text}) for text in texts])) >= 0).sum())


def until(true, seconds=10.0):
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.05)


def clean(path):
    return not verify(path)["damaged"]


def test_without_the_option_nothing_in_the_store_changes(subject, store):
    before = contents(Path(store))
    with serving([subject.similar, subject.moods], [store], ServeSettings(memory=1)) as server:
        embed(server, OTHER_TEXTS)
    assert contents(Path(store)) == before


def test_misses_are_sealed_by_age_and_are_hits_from_then_on(subject, store):
    with serving([subject.similar, subject.moods], [store], KEEPING) as server:
        first = embed(server, OTHER_TEXTS)
        until(lambda: held(store, OTHER_TEXTS) == len(OTHER_TEXTS))
        until(lambda: server.service.groups[0].hits.store.bytes > Store.open(subject.store).bytes)
        misses = server.samples("miss", "similar")
        np.testing.assert_allclose(embed(server, OTHER_TEXTS), first, atol=1e-5)
        assert server.samples("miss", "similar") == misses
        server.post("/runs/moods", {"inputs": OTHER_TEXTS})
        assert server.samples("miss", "moods") == 0
        assert len(Store.open(store)) == len(HELD) + len(OTHER_TEXTS)
        embed(server, MANY[:5])
    assert held(store, MANY[:5]) == 5  # what was left is sealed at the end
    assert clean(store)
    with serving([subject.similar], [store], ServeSettings(memory=1)) as server:
        np.testing.assert_allclose(embed(server, OTHER_TEXTS), first, atol=1e-5)
        assert server.samples("miss", "similar") == 0


def held_up(monkeypatch, owner, name, turn):
    """Let a method's call of this number, from 0, wait. Returns what is set when it has begun, and what lets it go."""
    begun, go, usual, turns = threading.Event(), threading.Event(), getattr(owner, name), count()

    def wait(one):
        if next(turns) == turn:
            begun.set()
            assert go.wait(20)
        return usual(one)

    monkeypatch.setattr(owner, name, wait)
    return begun, go


@pytest.mark.parametrize(
    "step",
    [
        pytest.param((SegmentWriter, "seal", 0), id="while the first are sealed"),
        pytest.param((Store, "as_it_is_now", 1), id="while what was sealed is taken notice of"),
    ],
)
def test_what_is_asked_again_before_it_is_sealed_is_written_once(subject, store, monkeypatch, step):
    first, second = held_up(monkeypatch, *step), held_up(monkeypatch, SegmentWriter, "seal", 1)
    settings = ServeSettings(write_back=True, seal_seconds=60.0, segment_bytes=1, memory=1)
    with serving([subject.similar], [store], settings) as server:
        embed(server, OTHER_TEXTS[:2])
        assert first[0].wait(20)
        embed(server, OTHER_TEXTS[2:5])
        first[1].set()
        assert second[0].wait(20)
        embed(server, OTHER_TEXTS[2:5])
        second[1].set()
    assert (len(Store.open(store)), Store.open(store).copies) == (len(HELD) + 5, 0)
    assert held(store, OTHER_TEXTS[:5]) == 5


@pytest.mark.parametrize("error", [DataError("float16 cannot hold one of them"), MemoryError(), ValueError("other")])
def test_samples_are_kept_whose_batch_failed_because_of_another(subject, store, monkeypatch, error):
    usual, calls = scorer.rows_of, count()

    def fail_once(*arguments):
        if not next(calls):
            raise error
        return usual(*arguments)

    monkeypatch.setattr(scorer, "rows_of", fail_once)
    with serving([subject.similar], [store], KEEPING) as server:
        embed(server, OTHER_TEXTS[:4])
    assert held(store, OTHER_TEXTS[:4]) == 4


def test_a_write_back_that_fails_lets_nobody_wait(subject, store, monkeypatch):
    def fail(*_):
        raise ValueError("nobody\nexpects it")

    monkeypatch.setattr("recycle_cli.serve.keeping._WAITING_BYTES", 0)
    monkeypatch.setattr(SegmentWriter, "append", fail)
    with serving([subject.similar], [store], KEEPING) as server:
        for start in range(3):
            embed(server, MANY[8 * start : 8 * start + 8])
        keeping = server.service.groups[0].keeping
        until(lambda: keeping.broken is not None)
        assert keeping.broken == "ValueError: nobody expects it"
        embed(server, MANY[24:32])


def test_the_store_stays_within_its_bytes_and_what_was_used_last_stays(subject, store):
    used = Store.open(store).place.bytes_used()
    most = used + 300_000
    settings = ServeSettings(write_back=True, seal_seconds=60.0, memory=1, max_disk=most, segment_bytes=20_000)
    asked = OTHER_TEXTS[:8]
    with serving([subject.similar], [store], settings) as server:
        expected = embed(server, asked)
        for start in range(0, len(MANY), 16):
            embed(server, MANY[start : start + 16])
            np.testing.assert_allclose(embed(server, asked), expected, atol=1e-5)
            assert Store.open(store).place.bytes_used() <= most
        keeping = server.service.groups[0].keeping
        until(lambda: keeping._queue.empty())
        assert keeping.broken is None
    assert Store.open(store).place.bytes_used() <= most
    assert 0 < held(store, MANY) < len(set(MANY))
    assert held(store, asked) == len(asked)
    assert held(store, MANY[-32:]) > held(store, MANY[32:64])
    assert clean(store)


def test_a_store_that_is_too_large_already_is_refused(subject, store):
    with (
        pytest.raises(UsageError, match=r"has .* bytes already"),
        serving([subject.similar], [store], ServeSettings(write_back=True, max_disk=10_000)),
    ):
        pass
    assert held(store, [record["text"] for record in HELD]) == len(HELD)


def test_a_kill_loses_no_more_than_what_was_not_sealed(subject, store):
    options = ("--store", store, "--write-back", "--seal-seconds", "0.5")
    with command(subject.similar, *options) as process:
        url = json.loads(process.stdout.readline())["url"]
        for start in range(0, len(MANY), 40):
            body = {"model": "similar", "input": MANY[start : start + 40]}
            assert httpx2.post(f"{url}/v1/embeddings", json=body, timeout=30).status_code == 200
            if start == 120:
                until(lambda: held(store, MANY[:120]) == 120)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert held(store, MANY[:120]) == 120
    assert clean(store)
    with serving([subject.similar], [store], KEEPING) as server:
        assert not [one for one in Store.open(store).place.unfinished() if not one.alive]
        embed(server, MANY[:120])
        assert server.samples("miss", "similar") == 0
        embed(server, MANY)
    assert held(store, MANY) == len(MANY)
    assert clean(store)


def test_a_key_that_is_stored_with_another_digest_is_no_hit_and_is_not_written(subject, store):
    """As a collision of the short key made on purpose would be."""
    with serving([subject.similar], settings=ServeSettings(memory=1)) as plain:
        expected = embed(plain, OTHER_TEXTS[:3])
    opened = Store.open(store)
    keys, digests = keys_of([Sample("", {"text": OTHER_TEXTS[1]})])
    position = int(opened.positions()[0])
    values, _ = opened.gather_rows("2", np.array([position]))
    with opened.writer() as writer:
        writer.append(keys, digests ^ 1, opened.lengths(np.array([position])), {"2": EncodedRows(values)})
    with serving([subject.similar], [store], KEEPING) as server:
        np.testing.assert_allclose(embed(server, OTHER_TEXTS[:3]), expected, atol=1e-5)
        until(lambda: held(store, OTHER_TEXTS[:1]) == 1)
        np.testing.assert_allclose(embed(server, OTHER_TEXTS[:3]), expected, atol=1e-5)


def test_tenants_do_not_find_what_others_have_sent(subject, store):
    keys = ["alice-has-a-long-key", "bob-has-another-long-key"]
    settings = ServeSettings(write_back=True, seal_seconds=0.2, tenants=True)
    with serving([subject.similar], [store], settings, keys=keys) as server:

        def misses(texts, key):
            before = server.samples("miss", "similar")
            found = embed(server, texts, headers={"Authorization": f"Bearer {key}"})
            return server.samples("miss", "similar") - before, found

        count, alices = misses(OTHER_TEXTS[:4], keys[0])
        assert count == 4
        before = len(Store.open(subject.store))
        until(lambda: len(Store.open(store)) == before + 4)
        until(lambda: not server.service.groups[0].misses._underway.contents)
        time.sleep(0.2)
        assert misses(OTHER_TEXTS[:4], keys[0])[0] == 0
        count, bobs = misses(OTHER_TEXTS[:4], keys[1])
        assert count == 4
        np.testing.assert_allclose(alices, bobs, atol=1e-5)
        server.service.groups[0].memory.__init__(1)
        assert misses(OTHER_TEXTS[:4], keys[0])[0] == 0  # from the store
        # What the store was given before is everybody's.
        assert misses([record["text"] for record in HELD], keys[1])[0] == 0
    assert held(store, OTHER_TEXTS[:4]) == 0
    assert isinstance(server.service.groups[0].memory, Memory)
