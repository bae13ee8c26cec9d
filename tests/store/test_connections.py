"""Connections that break off, servers that send elsewhere, and tokens in a URL."""

import socket
import struct
import threading
from contextlib import contextmanager
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from recycle_cli.errors import StorageError, UsageError
from recycle_cli.store import Store, export, info, verify
from recycle_cli.store.layout import dumps, sealed

from .corpora import Corpus
from .servers import KEYS, Handler, web_server

obstore = pytest.importorskip("obstore")
SECRET = "sig-5ecret"


def reset(connection):
    """Close a connection so that the other side is told of a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class Proxy:
    """Passes requests on, each on a connection of its own, and resets those that `resets` picks.

    resets   (method, path, how often this method and path came) -> None, "before" or "after" the server has it
    """

    def __init__(self, endpoint, resets):
        self.server = endpoint.removeprefix("http://").split(":")
        self.resets, self.seen, self.count = resets, {}, 0
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        head = b""
        while b"\r\n\r\n" not in head:
            piece = client.recv(65536)
            if not piece:
                client.close()
                return
            head += piece
        lines, _, body = head.partition(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in lines.split(b"\r\n") if line.lower().startswith(b"content-length")), 0
        )
        while len(body) < length:
            body += client.recv(65536)
        method, path = lines.split(b" ")[:2]
        asked = (method.decode(), path.decode().partition("?")[0])
        self.seen[asked] = self.seen.get(asked, 0) + 1
        how = self.resets(*asked, self.seen[asked])
        self.count += how is not None
        if how == "before":
            reset(client)
            return
        answer = b""
        with socket.create_connection((self.server[0], int(self.server[1]))) as server:
            server.sendall(lines + b"\r\nConnection: close\r\n\r\n" + body)
            while piece := server.recv(65536):
                answer += piece
        if how == "after":
            reset(client)
        else:
            client.sendall(answer)
            client.close()


@contextmanager
def proxied(endpoint, monkeypatch, resets):
    proxy = Proxy(endpoint, resets)
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": proxy.url}.items():
        monkeypatch.setenv(name, value)
    try:
        yield proxy
    finally:
        proxy.socket.close()


@pytest.mark.parametrize(("method", "how"), [("PUT", "before"), ("PUT", "after"), ("GET", "after"), ("HEAD", "before")])
def test_each_request_may_be_reset_once(s3_endpoint, monkeypatch, method, how):
    url = f"s3://bucket/reset-{how}-{method}.zarr"
    corpus = Corpus()
    with proxied(
        s3_endpoint, monkeypatch, lambda asked, path, count: how if asked == method and count == 1 else None
    ) as it:
        store = corpus.store(url, range(5))
        corpus.check(store, range(5))
        assert verify(url)["damaged"] == []
        assert it.count > (0 if method == "HEAD" else 3)


def test_a_create_whose_answer_is_lost_is_looked_up(s3_endpoint, monkeypatch):
    """The root is made, and each answer about it is lost."""
    url = "s3://bucket/lost-answers.zarr"
    monkeypatch.setattr("recycle_cli.store.remote.PAUSE", 0.01)

    def resets(method, path, count):
        return "after" if method == "PUT" and path.endswith("lost-answers.zarr/zarr.json") else None

    with proxied(s3_endpoint, monkeypatch, resets) as it:
        store = Corpus().store(url, range(3))
        assert it.count > 1
        Corpus().check(store, range(3))


def test_resets_without_end_are_one_line_soon(s3_endpoint, monkeypatch):
    monkeypatch.setattr("recycle_cli.store.remote.PAUSE", 0.01)
    with (
        proxied(s3_endpoint, monkeypatch, lambda *_: "before") as it,
        pytest.raises(StorageError, match="cannot be reached"),
    ):
        Store.open("s3://bucket/never.zarr")
    assert 1 < it.count < 100


def test_a_refused_object_in_a_bucket_is_no_damage(s3_endpoint, monkeypatch, bucket):
    """Its server answers 403, as it does when a policy is changed."""
    corpus = Corpus()
    store = corpus.store(bucket, range(10), segment_bytes=100)
    victim = f"segments/{store.segments[1].id}/cuts/2/values/c.0.0"
    get_range = obstore.get_range

    def refused(target, path, **options):
        if path == victim:
            from obstore.exceptions import PermissionDeniedError

            raise PermissionDeniedError("403 Forbidden")
        return get_range(target, path, **options)

    monkeypatch.setattr(obstore, "get_range", refused)
    monkeypatch.setattr("recycle_cli.store.patient.PAUSES", (0.0,))
    found = verify(bucket, repair=True)
    assert (found["damaged"], found["set_aside"]) == ([], [])
    assert [one["file"] for one in found["unread"]] == ["cuts/2/values/c.0.0"]


def test_a_mended_root_and_foreign_objects_in_memory(memory):
    corpus = Corpus()
    store = corpus.store(memory, range(10))
    objects = store.place._store
    obstore.put(objects, "segments/notes.txt", b"mine")
    obstore.put(objects, f"segments/{store.segments[0].id}/.DS_Store", b"mine")
    document = {"attributes": {"recycle": {"recipe": corpus.recipe.to_json()}}, "node_type": "group", "zarr_format": 3}
    obstore.put(objects, "zarr.json", dumps(document))
    found = verify(memory, repair=True)
    assert (found["mended"], found["set_aside"]) == (["zarr.json"], [])
    assert found["foreign"] == [f"segments/{store.segments[0].id}/.DS_Store", "segments/notes.txt"]
    corpus.check(Store.open(memory, corpus.recipe), range(10))


def test_verify_reads_the_bucket_and_not_the_cache(memory, tmp_path, monkeypatch):
    monkeypatch.setenv("RECYCLE_CACHE", str(tmp_path / "cache"))
    corpus = Corpus()
    store = corpus.store(memory, range(10))
    for name in ("cuts/2/values/c.0.0", "keys/c.0.0", "offsets/c.0", "digests/c.0.0"):
        path = f"segments/{store.segments[0].id}/{name}"
        content = bytes(obstore.get(store.place._store, path).bytes())
        Store.open(memory).read("2", 0)  # all that a reader needs is in the cache
        assert verify(memory)["damaged"] == []
        obstore.put(store.place._store, path, bytes([content[0] ^ 1]) + content[1:])
        assert [damage["file"] for damage in verify(memory)["damaged"]] == [name]
        obstore.put(store.place._store, path, content)


@pytest.fixture
def folder(tmp_path):
    Corpus().store(tmp_path / "s.zarr", range(5))
    return tmp_path


class Odd(Handler):
    """A file server that answers otherwise where `odd` (path, how often it was asked for) gives a status."""

    odd = staticmethod(lambda path, count: None)
    target = ""
    asked: dict[str, int]

    def send_head(self):
        self.asked[self.path] = self.asked.get(self.path, 0) + 1
        status = self.odd(self.path.partition("?")[0], self.asked[self.path])
        if status is None:
            return super().send_head()
        if status == "reset":
            self.close_connection = True
            reset(self.connection)
            return None
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("Location", self.target or self.path.replace("/moved/", "/"))
        self.send_header("Content-Length", "0")
        self.end_headers()
        return None


@contextmanager
def odd_server(folder, odd, target=""):
    handler = type("Handler", (Odd,), {"odd": staticmethod(odd), "target": target, "asked": {}})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", handler
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "file"),
    [
        pytest.param(status, file, marks=() if file == "keys/c.0.0" or status == 302 else pytest.mark.long)
        for status in (301, 302, 303, 307, 308)
        for file in ("s.zarr/zarr.json", "keys/c.0.0", "s.zarr/segments/")
    ],
)
def test_a_redirection_to_another_host_is_refused(folder, status, file):
    with web_server(folder) as elsewhere:
        inside = lambda path, count: status if path.endswith(file) else None  # noqa: E731
        with (
            odd_server(folder, inside, f"{elsewhere}/s.zarr/zarr.json") as (address, _),
            pytest.raises(StorageError, match="another host"),
        ):
            Store.open(f"{address}/s.zarr")


def test_a_redirection_within_the_host_is_followed_and_a_circle_is_not(folder):
    with odd_server(folder, lambda path, count: 302 if path.startswith("/moved/") else None) as (address, _):
        Corpus().check(Store.open(f"{address}/moved/s.zarr"), range(5))
    with odd_server(folder, lambda path, count: 302) as (address, _), pytest.raises(StorageError, match="redirections"):
        Store.open(f"{address}/s.zarr")


@pytest.mark.parametrize("failure", [500, 503, 429, "reset"])
def test_a_web_server_is_asked_again(folder, monkeypatch, failure):
    monkeypatch.setattr("recycle_cli.store.web.PAUSES", (0.01,) * 3)
    with odd_server(folder, lambda path, count: failure if count == 1 else None) as (address, _):
        Corpus().check(Store.open(f"{address}/s.zarr"), range(5))
    with odd_server(folder, lambda path, count: failure) as (address, handler):
        with pytest.raises(StorageError, match="cannot be reached"):
            Store.open(f"{address}/s.zarr")
        assert max(handler.asked.values()) == 4


def test_a_web_store_is_verified_by_what_its_server_lists(folder, monkeypatch):
    monkeypatch.setattr("recycle_cli.store.patient.PAUSES", ())
    with web_server(folder) as address:
        assert verify(f"{address}/s.zarr")["damaged"] == []
        (values,) = folder.glob("s.zarr/segments/*/cuts/2/values/c.0.0")
        values.write_bytes(values.read_bytes()[::-1])
        assert [damage["file"] for damage in verify(f"{address}/s.zarr")["damaged"]] == ["cuts/2/values/c.0.0"]
    with odd_server(folder, lambda path, count: 403 if path.endswith("offsets/c.0") else None) as (address, _):
        found = verify(f"{address}/s.zarr")
    assert [one["file"].rpartition("/")[2] for one in found["unread"]] != []


def test_a_token_for_a_web_server_comes_from_the_environment_and_is_not_shown(folder, monkeypatch):
    monkeypatch.setenv("RECYCLE_URL_QUERY", f"sig={SECRET}")
    monkeypatch.setattr("recycle_cli.store.web.PAUSES", (0.01,))
    with odd_server(folder, lambda path, count: None) as (address, handler):
        store = Store.open(f"{address}/s.zarr")
        Corpus().check(store, range(5))
        assert all(SECRET in asked for asked in handler.asked)
        assert SECRET not in store.path + str(info(store.path)) + str(verify(store.path))
    for failure in (403, 404, 500, "reset", 302):
        with (
            odd_server(folder, lambda path, count, failure=failure: failure, "http://elsewhere/?a=b") as (address, _),
            pytest.raises(Exception, match=address) as caught,
        ):
            Store.open(f"{address}/s.zarr")
        assert SECRET not in str(caught.value)
    with pytest.raises(StorageError) as caught:  # no server at all
        Store.open(f"{address}/s.zarr")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        f"http://127.0.0.1:9/s.zarr?sig={SECRET}",
        f"https://host/s.zarr#{SECRET}",
        f"s3://bucket/s.zarr?X-Amz-Signature={SECRET}",
        f"az://container/s.zarr?sv=1&sig={SECRET}",
        f"s3://key:{SECRET}@bucket/s.zarr",
        f"http://[::/s.zarr?sig={SECRET}",
        f"ftp://host/s.zarr?sig={SECRET}",
    ],
)
def test_a_url_with_a_token_is_refused_and_the_token_not_repeated(url, tmp_path):
    for call in (Store.open, info, verify, lambda url: export(url, str(tmp_path / "x")), Corpus().store):
        with pytest.raises(UsageError) as caught:
            call(url)
        assert SECRET not in str(caught.value)
    assert not list(Path(tmp_path).iterdir())


def test_a_root_sealed_with_odd_names_is_read(tmp_path):
    """Names of provenance are other people's; `recycle store info` cleans them when it prints."""
    path = tmp_path / "s.zarr"
    Corpus().store(path, range(2))
    document = {"attributes": {"recycle": {**_record(path), "provenance": {"\x1b]0;pwned\x07key": "a"}}}}
    (path / "zarr.json").write_bytes(dumps(sealed({**document, "node_type": "group", "zarr_format": 3})))
    assert info(str(path))["provenance"] == {"\x1b]0;pwned\x07key": "a"}


def _record(path):
    from recycle_cli.store.layout import loads

    record = loads((path / "zarr.json").read_bytes(), str(path))["attributes"]["recycle"]
    return {name: value for name, value in record.items() if name != "seal"}
