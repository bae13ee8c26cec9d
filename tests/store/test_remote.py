"""Stores in buckets, on servers on loopback, on a web server and in memory.

S3 is tested with moto's server. Google's storage uses the same server: its client speaks an XML API that is S3's except
in how it asks to create an object only if there is none (emulators on PyPI speak the JSON API, which the client does
not use). Azure is tested with azurite if `azurite-blob` is on the path (`npm install azurite`).
"""

import base64
import email.utils
import hashlib
import hmac
from urllib.request import Request, urlopen

import numpy as np
import pytest

from recycle_cli.errors import DamageError, MismatchError, StorageError, StoreError, UsageError
from recycle_cli.store import Store, export, gc, info, remove, verify

from .conftest import named
from .corpora import Corpus, recipe
from .servers import KEYS, served, web_server

obstore = pytest.importorskip("obstore")


@pytest.fixture(scope="session")
def azure_endpoint():
    """An azurite with a container, made as its documentation says, since the client cannot make one."""
    account = "devstoreaccount1"
    key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
    options = ("--inMemoryPersistence", "--skipApiVersionCheck", "--silent", "--disableTelemetry")
    with served("azurite-blob", *options, host="--blobHost", port="--blobPort") as endpoint:
        headers = {"x-ms-date": email.utils.formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
        named = "".join(f"{name}:{value}\n" for name, value in headers.items())
        text = f"PUT{12 * chr(10)}{named}/{account}/{account}/bucket\nrestype:container"
        signature = base64.b64encode(hmac.new(base64.b64decode(key), text.encode(), hashlib.sha256).digest()).decode()
        headers |= {"Authorization": f"SharedKey {account}:{signature}", "Content-Length": "0"}
        urlopen(Request(f"{endpoint}/{account}/bucket?restype=container", method="PUT", headers=headers)).close()
        yield endpoint


@pytest.fixture
def google(s3_endpoint, monkeypatch, request):
    """moto takes every Authorization header for that of S3 and reads the region from it."""
    monkeypatch.setenv("GOOGLE_BASE_URL", s3_endpoint)
    monkeypatch.setenv("GOOGLE_BEARER_TOKEN", "test/20260101/us-east-1/s3/aws4_request")
    return f"gs://bucket/google-{named(request)}.zarr"


@pytest.fixture
def azure(azure_endpoint, monkeypatch, request):
    monkeypatch.setenv("AZURE_STORAGE_USE_EMULATOR", "true")
    monkeypatch.setenv("AZURITE_BLOB_STORAGE_URL", azure_endpoint)
    return f"az://bucket/{named(request)}.zarr"


def objects(url):
    from recycle_cli.store.remote import RemotePlace

    return RemotePlace(url)._store


@pytest.mark.parametrize("where", ["bucket", "google", "azure", "memory"])
@pytest.mark.parametrize(("dtype", "codec"), [("float16", "none"), ("int8", "lz4"), ("int4", "none")])
def test_a_bucket_is_a_store_as_any_other(request, where, dtype, codec, tmp_path, capsys):
    url = request.getfixturevalue(where)
    corpus = Corpus(dtype, cuts=("1", "2"))
    store = corpus.store(url, range(30), segment_bytes=1200, codec=codec)
    corpus.store(url, range(25, 35), codec=codec)
    store.refresh()
    assert len(store) == 35
    again = Store.open(url, corpus.recipe)
    corpus.check(again, range(35))
    assert not again.is_mapped("2")
    positions = again.lookup(*corpus.keys([3, 34]))
    out, _ = again.gather("2", positions)
    np.testing.assert_array_equal(out[1, : corpus.length(34)], corpus.encoded(34, "2").values)
    seen = [window.positions for window in again.windows("1", again.positions(), memory=1 << 20, seed=0)]
    assert sorted(np.concatenate(seen)) == again.positions().tolist()
    assert verify(url)["damaged"] == []
    assert info(url)["duplicates"] == 5
    assert export(url, str(tmp_path / "x.safetensors"), cut="1")["samples"] == 35
    with pytest.raises(MismatchError, match="dtype"):
        Store.open(url, recipe("float32", cuts=("1", "2")))
    with pytest.raises(UsageError, match=r"lock.*download.*new URL") as refused:
        remove(again, [corpus.keys([3])[0]])
    assert "\n" not in str(refused.value)
    assert gc(url)["removed"] == 0
    assert "5 samples stored twice stay" in capsys.readouterr().err


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


def test_gc_of_a_bucket_is_done_on_a_copy(memory, tmp_path):
    """The remedy in the message works."""
    corpus = Corpus()
    corpus.store(memory, range(20))
    corpus.store(memory, range(10, 30))
    source = objects(memory)
    for meta in [meta for batch in obstore.list(source) for meta in batch]:
        path = tmp_path / "copy" / meta["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(obstore.get(source, meta["path"]).bytes()))
    assert gc(str(tmp_path / "copy"))["duplicates"] == 10
    target = objects(f"{memory}-collected")
    for path in (path for path in (tmp_path / "copy").rglob("*") if path.is_file()):
        obstore.put(target, path.relative_to(tmp_path / "copy").as_posix(), path.read_bytes())
    store = Store.open(f"{memory}-collected", corpus.recipe)
    corpus.check(store, range(30))
    assert info(store.path)["duplicates"] == 0
    assert verify(store.path)["damaged"] == []


def test_info_lists_uploads_without_a_document_and_what_was_set_aside(memory, monkeypatch):
    store = Corpus().store(memory, range(10), segment_bytes=100)
    obstore.put(objects(memory), "segments/20260101T000000000000-0123456789ab/keys/c.0.0", bytes(100))
    found = info(memory)
    assert (found["leftovers"], found["set_aside"]) == ([], [])
    assert [(entry["alive"], entry["bytes"]) for entry in found["writers"]] == [(True, 100)]
    obstore.put(objects(memory), f"segments/{store.segments[0].id}/keys/c.0.0", bytes(3))
    verify(memory, repair=True)
    monkeypatch.setattr("recycle_cli.store.remote.FOREIGN_IDLE_SECONDS", -1.0)
    found = info(memory)
    assert found["writers"] == []
    assert len(found["leftovers"]) == 2  # the upload, and the rest of the damaged segment
    (aside,) = found["set_aside"]
    assert aside.startswith(f"segments-{store.segments[0].id}-")


def test_a_second_repair_keeps_the_copy_of_the_first(memory):
    """Of a root that is mended, and of a document that is made anew."""
    corpus = Corpus()
    corpus.store(memory, range(5))
    for name, damaged in (("zarr.json", b'"version":7'), ("index/zarr.json", b'"version":1')):
        for number in range(3):
            sound = bytes(obstore.get(objects(memory), name).bytes())
            spoilt = sound.replace(b'"version":1', damaged) + b" " * (number + 1)
            obstore.put(objects(memory), name, spoilt)
            verify(memory, repair=True)
            assert bytes(obstore.get(objects(memory), name).bytes()) == sound
            held = [bytes(obstore.get(objects(memory), f"damaged/{one}").bytes()) for one in info(memory)["set_aside"]]
            assert spoilt in held
            assert sum(spoilt.strip() == one.strip() for one in held) == number + 1
    corpus.check(Store.open(memory), range(5))


def test_a_document_of_100_mb_in_a_bucket_is_refused(memory):
    store = Corpus().store(memory, range(3))
    for name in (f"segments/{store.segments[0].id}/zarr.json", "zarr.json"):
        obstore.put(objects(memory), name, bytes(100_000_000))
        with pytest.raises(DamageError, match="bytes of metadata"):
            Store.open(memory)


def test_a_lost_group_document_comes_back(memory):
    Corpus().store(memory, range(3))
    obstore.delete(objects(memory), "index/zarr.json")
    assert [damage["file"] for damage in verify(memory, repair=True)["damaged"]] == ["index/zarr.json"]
    assert verify(memory)["damaged"] == []


def test_a_web_server_can_be_read_and_not_written(tmp_path):
    corpus = Corpus("int8")
    corpus.store(tmp_path / "s.zarr", range(20), segment_bytes=300, codec="zstd")

    with web_server(tmp_path) as address:
        url = f"{address}/s.zarr"
        store = Store.open(url)
        corpus.check(store, range(20))
        with pytest.raises(StorageError, match="can only be read"), store.writer():
            pass
        with pytest.raises(StoreError, match="not a store"):
            Store.open(f"{url}-none")


def test_other_schemes_and_wrong_addresses_are_one_line(monkeypatch):
    with pytest.raises(UsageError, match="s3://"):
        Store.open("ftp://host/s.zarr")
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("recycle_cli.store.remote.RETRY", {"max_retries": 0})
    for name, value in {"GOOGLE_BASE_URL": "http://127.0.0.1:9", "GOOGLE_BEARER_TOKEN": "none"}.items():
        monkeypatch.setenv(name, value)
    for url in ("s3://bucket/s.zarr", "gs://bucket/s.zarr", "az://container/s.zarr"):  # az without an account
        with pytest.raises(StorageError, match=r"cannot be reached \(.*credentials in the environment") as caught:
            Store.open(url)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", ["s3://bucket[1]/s.zarr", "s3://[::/s.zarr"])
def test_a_url_that_is_none_is_a_usage_error(url):
    with pytest.raises(UsageError, match=r"not a URL \("):
        Store.open(url)


@pytest.mark.parametrize("url", ["s3://", "gs:///s.zarr", "az://", "memory:///x"])
def test_a_url_without_a_bucket_is_a_usage_error(url):
    with pytest.raises(UsageError, match="names no bucket"):
        Store.open(url)
