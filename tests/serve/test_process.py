"""The command itself, in a process of its own: it says when it is ready, and finishes what is in flight."""

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager

import httpx2

from tests.serve.test_refused import HEAD

KEY = "a-key-of-enough-letters"


@contextmanager
def command(*words, **environment):
    """`recycle serve` and its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "recycle_cli", "serve", *words, "--port", "0", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_it_tells_its_address_asks_for_the_key_and_drains(subject):
    with command(subject.similar, "--store", subject.store, RECYCLE_API_KEY=f"other-{KEY}, {KEY}") as process:
        said = json.loads(process.stdout.readline())
        assert said["models"] == ["similar"]
        client = httpx2.Client(base_url=said["url"], headers={"Authorization": f"Bearer {KEY}"}, timeout=30)
        assert httpx2.post(f"{said['url']}/v1/embeddings", json={}).status_code == 401
        assert client.post("/v1/embeddings", json={"model": "similar", "input": "good"}).status_code == 200
        body = b'{"model": "similar", "input": "a good paper"}'
        with socket.create_connection(("127.0.0.1", int(said["url"].rpartition(":")[2]))) as wire:
            key = f"Authorization: Bearer {KEY}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            wire.sendall(HEAD + key + body[:10])
            while "recycle_requests_in_flight 2.0" not in client.get("/metrics").text:
                pass
            process.send_signal(signal.SIGTERM)
            while client_answers(client):
                pass
            wire.sendall(body[10:])
            answer = b""
            while part := wire.recv(65536):
                answer += part
        assert answer.startswith(b"HTTP/1.1 200")
        assert process.wait(20) == 0
        _, errors = process.communicate()
        assert KEY not in errors
        lines = [json.loads(line) for line in errors.splitlines() if line.startswith("{")]
        assert {line["status"] for line in lines} >= {200, 401}
        assert all({"time", "request", "method", "path", "status", "ms"} <= set(line) for line in lines)


def client_answers(client):
    """Whether the server still takes requests."""
    try:
        return client.get("/v1/models").status_code == 200
    except httpx2.TransportError:
        return False
