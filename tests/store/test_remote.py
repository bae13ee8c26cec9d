"""Stores in buckets: against an S3 server on loopback, a web server and memory."""

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
import pytest

from recycle_cli.errors import DamageError, MismatchError, RecycleError, StorageError, StoreError, UsageError
from recycle_cli.store import Store, export, gc, info, verify

from .corpora import Corpus, recipe

obstore = pytest.importorskip("obstore")

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}


@pytest.fixture(scope="session")
def s3_endpoint():
    server = shutil.which("moto_server", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if server is None:
        pytest.skip("moto_server is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    endpoint = f"http://127.0.0.1:{port}"
    command = [server, "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        for _ in range(200):
            try:
                urlopen(Request(f"{endpoint}/bucket", method="PUT")).close()
                break
            except OSError:
                time.sleep(0.1)
        yield endpoint
        process.kill()


@pytest.fixture
def bucket(s3_endpoint, monkeypatch, request):
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": s3_endpoint}.items():
        monkeypatch.setenv(name, value)
    return f"s3://bucket/{request.node.name}.zarr"


@pytest.fixture
def memory(request):
    return f"memory://{request.node.name}"


def objects(url):
    from recycle_cli.store.remote import RemotePlace

    return RemotePlace(url)._store


@pytest.mark.parametrize("where", ["bucket", "memory"])
@pytest.mark.parametrize(("dtype", "codec"), [("float16", "none"), ("int8", "lz4")])
def test_a_bucket_is_a_store_as_any_other(request, where, dtype, codec, tmp_path):
    url = request.getfixturevalue(where).replace("[", "-").replace("]", "")
    corpus = Corpus(dtype, cuts=("1", "2"))
    store = corpus.store(url, range(30), segment_bytes=1200, codec=codec)
    corpus.store(url, range(25, 35), codec=codec)
    store.refresh()
    assert len(store) == 35
    again = Store.open(url, corpus.recipe)
    corpus.check(again, range(35))
    assert not again.is_mapped("2")
    positions = again.lookup(*corpus.keys([3, 34]))
    out = np.empty((2, 9, 8), again.stored_dtype)
    again.gather("2", positions, out, np.empty((2, 9), np.float32) if dtype == "int8" else None)
    np.testing.assert_array_equal(out[1, : corpus.length(34)], corpus.encoded(34, "2").values)
    seen = [window.positions for window in again.windows("1", again.positions(), memory=1 << 20, seed=0)]
    assert sorted(np.concatenate(seen)) == again.positions().tolist()
    assert verify(url)["damaged"] == []
    assert info(url)["duplicates"] == 5
    assert export(url, str(tmp_path / "x.safetensors"), cut="1")["samples"] == 35
    with pytest.raises(MismatchError, match="dtype"):
        Store.open(url, recipe("float32", cuts=("1", "2")))
    with pytest.raises(UsageError, match="local"):
        gc(url)


def test_an_upload_cut_short_is_invisible(memory, monkeypatch):
    corpus = Corpus()
    store = corpus.store(memory, range(10))
    put = obstore.put

    def dying(target, name, data, **options):
        if name.endswith("offsets/c.0"):
            raise ConnectionError("the network is gone")
        return put(target, name, data, **options)

    monkeypatch.setattr(obstore, "put", dying)
    with pytest.raises(StorageError, match=r"disk|gone"), store.writer() as writer:
        corpus.append(writer, range(10, 20))
    monkeypatch.undo()
    store.refresh()
    assert len(store) == 10
    corpus.check(store, range(10))
    corpus.check(corpus.store(memory, range(10, 20)), range(20))


def test_damage_in_a_bucket_is_named_and_repaired(memory):
    corpus = Corpus()
    store = corpus.store(memory, range(20), segment_bytes=200)
    victim = store.segments[1]
    name = f"segments/{victim.id}/cuts/2/values/c.0.0"
    content = bytearray(bytes(obstore.get(objects(memory), name).bytes()))
    content[3] ^= 16
    obstore.put(objects(memory), name, bytes(content))
    (damage,) = verify(memory)["damaged"]
    assert (damage["segment"], damage["file"]) == (victim.id, "cuts/2/values/c.0.0")
    verify(memory, repair=True)
    assert verify(memory)["damaged"] == []
    missing = np.flatnonzero(Store.open(memory).lookup(*corpus.keys(range(20))) < 0)
    assert len(missing) == victim.summary.samples
    corpus.check(corpus.store(memory, missing.tolist()), range(20))
    obstore.delete(objects(memory), f"segments/{store.segments[0].id}/keys/c.0.0")
    with pytest.raises(DamageError, match="missing"):
        Store.open(memory)


def test_a_web_server_can_be_read_and_not_written(tmp_path):
    corpus = Corpus("int8")
    corpus.store(tmp_path / "s.zarr", range(20), segment_bytes=300, codec="zstd")

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

        def send_head(self):
            """With ranges, which the library's own server does not know and every other does."""
            start, _, stop = self.headers.get("Range", "").removeprefix("bytes=").partition("-")
            path = Path(self.translate_path(self.path))
            if not start or not path.is_file():
                return super().send_head()
            data = path.read_bytes()
            part = data[int(start) : int(stop) + 1]
            self.send_response(206)
            self.send_header("Content-Length", str(len(part)))
            self.send_header("Content-Range", f"bytes {start}-{int(start) + len(part) - 1}/{len(data)}")
            self.send_header("Last-Modified", self.date_time_string(path.stat().st_mtime))
            self.end_headers()
            self.wfile.write(part)
            return None

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=tmp_path)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/s.zarr"
        try:
            store = Store.open(url)
            corpus.check(store, range(20))
            with pytest.raises(StorageError, match="read only"), store.writer():
                pass
            with pytest.raises(StoreError, match="not a store"):
                Store.open(f"{url}-none")
        finally:
            server.shutdown()
            thread.join()


def test_other_schemes_and_wrong_addresses_are_one_line(monkeypatch):
    with pytest.raises(UsageError, match="s3://"):
        Store.open("ftp://host/s.zarr")
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("recycle_cli.store.remote.RETRY", {"max_retries": 0})
    with pytest.raises(RecycleError, match="cannot be reached") as caught:
        Store.open("s3://bucket/s.zarr")
    assert "\n" not in str(caught.value)
