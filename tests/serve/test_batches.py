"""The rules by which requests share batches."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx2
import pytest

from recycle_cli.errors import UsageError
from recycle_cli.settings import ServeSettings
from tests.serve.conftest import HELD, OTHERS
from tests.serve.servers import serving

OTHER_TEXTS = [record["text"] for record in OTHERS]
HELD_TEXTS = [record["text"] for record in HELD]


@pytest.fixture
def server(subject):
    settings = ServeSettings(batch_tokens=64, memory=1)
    with serving([subject.moods, subject.similar], [subject.store], settings) as server:
        yield server


class Watched:
    """The batches of misses that were computed, each a list of texts and its padded tokens. They wait for `go`."""

    def __init__(self):
        self.batches, self.padded, self.poison = [], [], None
        self.go, self.begun = threading.Event(), threading.Event()
        self.go.set()

    @property
    def texts(self):
        return [text for batch in self.batches for text in batch]


@contextmanager
def watching(server):
    scorer, watched = server.service.groups[0].misses, Watched()
    usual = scorer.from_inputs

    def from_inputs(batch, window, writer=None, wanted=None):
        found = [sample.fields["text"] for sample in window.samples]
        watched.batches.append(found)
        watched.padded.append(len(found) * int(batch.lengths.max()))
        watched.begun.set()
        assert watched.go.wait(20)
        if watched.poison in found:
            raise RuntimeError("the model has failed at /a/path")
        return usual(batch, window, writer, wanted)

    scorer.from_inputs = from_inputs
    try:
        yield watched
    finally:
        watched.go.set()
        del scorer.from_inputs


def embed(server, texts, model="similar", **more):
    return server.post("/v1/embeddings", {"model": model, "input": texts}, **more)


def vectors(answer):
    return [one["embedding"] for one in answer.json()["data"]]


def until(true, seconds=5.0):
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.01)


def test_a_large_request_is_split_so_that_no_batch_exceeds_the_budget(server):
    with watching(server) as watched:
        assert embed(server, OTHER_TEXTS).status_code == 200
    assert sorted(watched.texts) == sorted(set(OTHER_TEXTS))
    assert max(watched.padded) <= 64
    assert len(watched.batches) < len(OTHER_TEXTS) / 2


def test_what_waits_is_taken_together_when_the_thread_is_free(server):
    with watching(server) as watched, ThreadPoolExecutor(8) as pool:
        watched.go.clear()
        first = pool.submit(embed, server, ["good"])
        assert watched.begun.wait(5)
        others = [pool.submit(embed, server, [text]) for text in ("red", "green", "fast", "slow")]
        until(lambda: server.service.misses.tokens >= 12)
        watched.go.set()
        assert all(one.result().status_code == 200 for one in (first, *others))
    assert [len(batch) for batch in watched.batches] == [1, 4]


def test_equal_content_in_flight_is_computed_once(server):
    with watching(server) as watched, ThreadPoolExecutor(8) as pool:
        watched.go.clear()
        asked = [pool.submit(embed, server, OTHER_TEXTS[:3] * 2) for _ in range(4)]
        runs = [pool.submit(server.post, "/runs", {"inputs": OTHER_TEXTS[:3]})]
        assert watched.begun.wait(5)
        time.sleep(0.3)
        watched.go.set()
        answers = [one.result() for one in asked]
        both = runs[0].result().json()["runs"]
    assert all(vectors(one) == vectors(answers[0]) for one in answers)
    assert vectors(answers[0])[:3] == vectors(answers[0])[3:]
    assert len(both["moods"]["answers"]) == len(both["similar"]["answers"]) == 3
    # The batch that had begun computes one RUN; the request for both RUNs came after it, or waited with the others.
    assert len(watched.texts) <= 6


def test_hits_do_not_wait_for_misses(server):
    with watching(server) as watched, ThreadPoolExecutor(4) as pool:
        watched.go.clear()
        miss = pool.submit(embed, server, OTHER_TEXTS[:2])
        assert watched.begun.wait(5)
        assert embed(server, HELD_TEXTS, timeout=5).status_code == 200
        assert not miss.done()
        watched.go.set()
        assert miss.result().status_code == 200
    assert sorted(watched.texts) == sorted(OTHER_TEXTS[:2])


def test_what_a_client_that_has_gone_asked_is_not_computed(server):
    with watching(server) as watched, ThreadPoolExecutor(4) as pool:
        watched.go.clear()
        first = pool.submit(embed, server, OTHER_TEXTS[:1])
        assert watched.begun.wait(5)
        with pytest.raises(httpx2.TimeoutException):
            embed(server, OTHER_TEXTS[1:4], timeout=0.3)
        stays = pool.submit(embed, server, OTHER_TEXTS[4:5])
        until(lambda: server.service.misses.tokens > 0)
        time.sleep(0.2)
        watched.go.set()
        assert first.result().status_code == stays.result().status_code == 200
    assert not set(watched.texts) & set(OTHER_TEXTS[1:4])
    assert "recycle_dropped_total 3.0" in server.client.get("/metrics").text
    assert embed(server, OTHER_TEXTS[1:4]).status_code == 200


def test_one_that_fails_fails_alone(server, subject):
    good = vectors(embed(server, OTHER_TEXTS[:2]))
    with watching(server) as watched, ThreadPoolExecutor(4) as pool:
        watched.go.clear()
        first = pool.submit(embed, server, ["good"])
        assert watched.begun.wait(5)
        watched.poison = OTHER_TEXTS[3]
        bad, well = pool.submit(embed, server, OTHER_TEXTS[3:4]), pool.submit(embed, server, OTHER_TEXTS[:2])
        until(lambda: server.service.misses.tokens > 10)
        time.sleep(0.2)
        watched.go.set()
        assert first.result().status_code == 200
        assert bad.result().status_code == 500
    assert "/a/path" not in bad.result().text
    assert bad.result().json()["error"]["type"] == "server_error"
    for one, other in zip(vectors(well.result()), good, strict=True):
        assert one == pytest.approx(other, abs=1e-5)


def test_a_failure_of_the_tokenizer_is_an_answer_for_all_who_wait(server, monkeypatch):
    begun, go = threading.Event(), threading.Event()

    def fail(*_):
        begun.set()
        assert go.wait(20)
        raise RuntimeError("the tokenizer has failed at /a/path")

    with ThreadPoolExecutor(2) as pool:
        monkeypatch.setattr("recycle_cli.serve.group.usable", fail)
        asked = [pool.submit(embed, server, OTHER_TEXTS[:2])]
        assert begun.wait(5)
        asked.append(pool.submit(embed, server, OTHER_TEXTS[:2]))
        time.sleep(0.3)  # it waits for its turn
        go.set()
        answers = [one.result(timeout=20) for one in asked]
    assert [one.status_code for one in answers] == [500, 500]
    assert not [one for one in answers if "/a/path" in one.text]
    monkeypatch.undo()
    assert embed(server, OTHER_TEXTS[:2]).status_code == 200


def test_beyond_what_may_wait_requests_are_refused_at_once(server):
    server.service.misses._most = 40
    with watching(server) as watched, ThreadPoolExecutor(4) as pool:
        watched.go.clear()
        asked = [pool.submit(embed, server, OTHER_TEXTS[:1])]
        assert watched.begun.wait(5)
        asked.append(pool.submit(embed, server, OTHER_TEXTS[1:3]))
        until(lambda: server.service.misses.tokens > 0)
        refused = embed(server, OTHER_TEXTS[3:12], timeout=5)
        watched.go.set()
        assert [one.result().status_code for one in asked] == [200, 200]
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert embed(server, OTHER_TEXTS[3:12]).status_code == 200


def test_a_server_does_not_start_if_one_text_could_exceed_the_budget(subject):
    with (
        pytest.raises(UsageError, match="may have 16 tokens; give at least 16"),
        serving([subject.similar], settings=ServeSettings(batch_tokens=15)),
    ):
        pass


def test_the_memory_keeps_what_was_asked_for_last_within_its_bytes(subject):
    with serving([subject.similar], settings=ServeSettings(memory=8000)) as server, watching(server) as watched:
        for _ in range(2):
            embed(server, OTHER_TEXTS[:4])
        assert len(watched.texts) == 4
        embed(server, OTHER_TEXTS)
        assert 0 < server.service.groups[0].memory.used <= 8000
        embed(server, OTHER_TEXTS[:4])
        before = len(watched.texts)
        for text in (*OTHER_TEXTS[4:9], *OTHER_TEXTS[:4]):
            embed(server, [text])
        assert not set(OTHER_TEXTS[:4]) & set(watched.texts[before:])
