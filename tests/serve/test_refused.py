"""What no request may do: come in without a key, be too large, too deep or too many, or learn what is not its own."""

import json
import socket
import time

import pytest

from recycle_cli.errors import UsageError
from recycle_cli.serve.running import serve
from recycle_cli.settings import LimitSettings, ModelSettings, ServeSettings
from tests.serve.servers import JSON, serving

KEY, OTHER = "a-key-of-enough-letters", "another-key-of-enough-letters"


@pytest.fixture(scope="module")
def server(subject):
    limits = LimitSettings(max_body=200_000, body_seconds=1.0, max_items=100)
    with serving([subject.similar], [subject.store], ServeSettings(limits=limits)) as server:
        yield server


@pytest.fixture(scope="module")
def guarded(subject):
    with serving([subject.moods], keys=[KEY, OTHER]) as server:
        yield server


def ask(server, body, headers=JSON, path="/v1/embeddings"):
    return server.client.post(path, content=body, headers=headers)


def test_without_a_key_nothing_answers_but_health(guarded):
    for path in ("/v1/models", "/metrics", "/openapi.json", "/docs", "/runs/moods", "/nothing"):
        for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {KEY}"}, {"X-Api-Key": KEY}):
            headers = {"Authorization": "", **given}
            assert guarded.client.get(path, headers=headers).status_code == 401, (path, given)
    refused = guarded.client.post("/v1/embeddings", json={}, headers={"Authorization": "Bearer wrong"})
    assert refused.json()["error"]["code"] == "invalid_api_key"
    assert "key-of-enough" not in refused.text
    assert guarded.client.get("/health", headers={"Authorization": ""}).status_code == 200
    for key in (KEY, OTHER):
        assert guarded.client.get("/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "example.invalid"])
def test_no_address_but_this_machines_is_served_without_a_key(subject, monkeypatch, host):
    monkeypatch.delenv("RECYCLE_API_KEY", raising=False)
    with pytest.raises(UsageError, match="RECYCLE_API_KEY, or add --without-key"):
        serve([subject.moods], [], ModelSettings(), ServeSettings(host=host, port=0))


def test_a_short_key_is_refused_and_not_shown(subject, monkeypatch):
    monkeypatch.setenv("RECYCLE_API_KEY", "hunter2")
    with pytest.raises(UsageError, match="7 characters") as refused:
        serve([subject.moods], [], ModelSettings(), ServeSettings(port=0))
    assert "hunter2" not in str(refused.value)


BODIES = {
    "nested": (b"[" * 100_000 + b"]" * 100_000, 400),
    "nested input": (b'{"model":"similar","input":' + b"[" * 90_000 + b"]" * 90_000 + b"}", 400),
    "NaN": (b'{"model":"similar","input":[NaN]}', 400),
    "infinite": (b'{"model":"similar","input":["a"],"dimensions":Infinity}', 400),
    "huge number": (b'{"model":"similar","input":"a","dimensions":1' + b"0" * 5000 + b"}", 400),
    "surrogate": (b'{"model":"similar","input":"\\ud800"}', 400),
    "no UTF-8": (b'{"model":"similar","input":"\xff"}', 400),
    "many": (json.dumps({"model": "similar", "input": ["a"] * 10_000}).encode(), 400),
    "empty": (b"", 400),
    "no input": (b'{"model":"similar","input":[]}', 400),
    "empty text": (b'{"model":"similar","input":["a",""]}', 400),
    "token ids": (b'{"model":"similar","input":[[1,2],[3]]}', 400),
    "other field": (b'{"model":"similar","input":"a","path":"/etc/passwd"}', 400),
    "other type": (b'{"model":"similar","input":{"text":"a"}}', 400),
    "other model": (b'{"model":"../../etc/passwd","input":"a"}', 404),
    "other size": (b'{"model":"similar","input":"a","dimensions":7}', 400),
    "too large": (b'{"model":"similar","input":"' + b"a" * 250_000 + b'"}', 413),
}


@pytest.mark.parametrize("name", list(BODIES))
def test_bad_bodies_are_refused_in_the_shape_of_openai(server, subject, name):
    body, status = BODIES[name]
    answer = ask(server, body)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert all(isinstance(error[field], str | None) for field in error)
    assert len(answer.text) < 1000
    for secret in (str(subject.folder), "Traceback", "site-packages", 'File "'):
        assert secret not in answer.text
    assert server.post("/v1/embeddings", {"model": "similar", "input": "a"}).status_code == 200


def test_the_refusal_of_token_ids_names_the_option_of_langchain(server):
    assert "check_embedding_ctx_length=False" in ask(server, BODIES["token ids"][0]).text


def test_only_json_is_read_so_that_no_page_of_a_browser_can_ask(server):
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        answer = ask(server, b'{"model":"similar","input":"a"}', {"Content-Type": kind})
        assert answer.status_code == 415


def raw(server, sent, *, wait=5.0):
    """What comes back for bytes, until the server closes or `wait` seconds have passed."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=wait) as wire:
        wire.sendall(sent)
        found = b""
        try:
            while part := wire.recv(65536):
                found += part
        except TimeoutError:
            return found, False
        return found, True


HEAD = b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def test_a_huge_content_length_is_refused_before_the_body(server):
    for length in (b"99999999999", b"9" * 30):
        answer, closed = raw(server, HEAD + b"Content-Length: " + length + b"\r\n\r\n")
        assert closed
        assert answer.split()[1] in (b"413", b"400")


def test_a_chunked_body_without_an_end_is_cut_off(server):
    chunk = b"4000\r\n" + b"a" * 0x4000 + b"\r\n"
    answer, closed = raw(server, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 20)
    assert closed
    assert b" 413 " in answer.split(b"\r\n")[0]


def test_a_body_that_does_not_come_is_given_up(server):
    began = time.monotonic()
    answer, closed = raw(server, HEAD + b'Content-Length: 100\r\n\r\n{"mod')
    assert closed
    assert b" 408 " in answer.split(b"\r\n")[0]
    assert time.monotonic() - began < 4


def test_requests_beyond_the_limit_are_refused_at_once(subject):
    limits = LimitSettings(max_requests=2, body_seconds=20.0)
    with serving([subject.similar], settings=ServeSettings(limits=limits)) as server:
        slow = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(2)]
        for wire in slow:
            wire.sendall(HEAD + b"Content-Length: 9\r\n\r\n")
        time.sleep(0.3)
        answer = ask(server, b"{}")
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.json()["error"]["type"] == "rate_limit_error"
        assert server.client.get("/health").status_code == 200
        for wire in slow:
            wire.close()
        time.sleep(0.3)
        assert server.post("/v1/embeddings", {"model": "similar", "input": "a"}).status_code == 200
