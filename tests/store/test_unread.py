"""What cannot be read is not damaged: it is tried again, told apart, and left where it is."""

import errno
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from recycle_cli.errors import StorageError, StoreError, UnreadError
from recycle_cli.store import Store, gc, info, verify
from recycle_cli.store.layout import dumps, loads, sealed

from .faults import failing

VALUES = "cuts/2/values/c.0.0"


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr("recycle_cli.store.patient.PAUSES", (0.0, 0.0))


@pytest.fixture
def store(tmp_path, corpus):
    return corpus.store(tmp_path / "s.zarr", range(15), segment_bytes=1, batch=5)


def tree(path):
    """Every file below a folder with its content, but for locks."""
    return {
        file.relative_to(path): file.read_bytes()
        for file in Path(path).rglob("*")
        if file.is_file() and file.name != "maintenance"
    }


@pytest.mark.parametrize("code", [errno.EIO, errno.EMFILE, errno.EACCES, errno.ESTALE, errno.ENXIO])
@pytest.mark.parametrize(("call", "file"), [("pread", VALUES), ("open", "digests/c.0.0"), ("pread", "offsets/c.0")])
def test_a_file_that_cannot_be_read_is_named_and_left_alone(store, code, call, file):
    victim, before = store.segments[1].id, tree(store.path)
    with failing(store.path, call, code, name=f"{victim}/{file}"):
        found = verify(store.path, repair=True)
    assert (found["damaged"], found["set_aside"], found["set_aside_samples"]) == ([], [], 0)
    assert [(one["segment"], one["file"]) for one in found["unread"]] == [(victim, file)]
    assert file in found["unread"][0]["problem"]
    assert tree(store.path) == before
    assert verify(store.path)["unread"] == []


@pytest.mark.parametrize(
    ("call", "name"), [("pread", VALUES), ("read", "segments/2"), ("open", "keys/"), ("scandir", "cuts")]
)
def test_a_read_that_fails_once_or_twice_is_tried_again(store, call, name):
    for times in (1, 2):
        with failing(store.path, call, name=name, times=times) as calls:
            found = verify(store.path, repair=True)
        assert calls.failed == times
        assert (found["damaged"], found["unread"]) == ([], [])


def test_damage_is_found_and_set_aside_beside_what_cannot_be_read(store):
    """Also within one segment, whose damage is certain whatever its other files hold."""
    torn, unread = store.segments[0], store.segments[2].id
    samples = torn.summary.samples
    Path(torn.where(VALUES)).write_bytes(b"x")
    with failing(store.path, "open", name=f"{unread}/{VALUES}"):
        found = verify(store.path, repair=True)
    assert {damage["segment"] for damage in found["damaged"]} == {torn.id}
    assert (found["set_aside"], found["set_aside_samples"]) == ([torn.id], samples)
    assert {one["segment"] for one in found["unread"]} == {unread}


@pytest.mark.parametrize(
    ("call", "name"), [("open", "s.zarr/zarr.json"), ("scandir", "segments"), ("open", "tmp/zarr")]
)
def test_a_root_that_cannot_be_read_is_no_damage(store, call, name):
    before = tree(store.path)
    with failing(store.path, call, name=name), pytest.raises(UnreadError):
        verify(store.path, repair=True)
    assert tree(store.path) == before


def test_a_folder_that_cannot_be_listed_does_not_count_as_empty(store):
    victim, before = store.segments[1].id, tree(store.path)
    with failing(store.path, "scandir", errno.EACCES, name=f"{victim}/cuts/2"):
        found = verify(store.path, repair=True)
    assert (found["damaged"], [one["segment"] for one in found["unread"]]) == ([], [victim])
    assert tree(store.path) == before


def test_an_index_that_cannot_be_read_is_no_damage(tmp_path, corpus, monkeypatch):
    monkeypatch.setattr("recycle_cli.store.indexfile.PERSIST_SAMPLES", 10)
    store = corpus.store(tmp_path / "s.zarr", range(40))
    with failing(store.path, "open", name="positions/c.0"):
        found = verify(store.path, repair=True)
    assert (found["damaged"], len(found["unread"])) == ([], 1)
    assert verify(store.path)["damaged"] == []


def test_gc_removes_nothing_if_a_segment_cannot_be_read(store, corpus):
    corpus.store(store.path, range(15))
    with failing(store.path, "pread", name=VALUES), pytest.raises(StorageError, match="nothing was removed"):
        gc(store.path)
    corpus.check(Store.open(store.path), range(15))


FOREIGN = [
    "segments/.DS_Store",
    "segments/notes.txt",
    "segments/Thumbs.db",
    "segments/.nfs000000000012",
    "segments/backup/old.txt",
    "segments/{segment}/.DS_Store",
    "segments/{segment}/cuts/2/.nfs000000000012",
    "segments/{segment}/cuts/2/values/c.0.0.bak",
    "segments/{segment}/thumbnails/a.png",
    "tmp/thesis.docx",
    "tmp/.DS_Store",
    "tmp/film/part1",
    "index/.DS_Store",
    "index/backup/a",
    "damaged/mine/a",
]


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_file_is_left_alone_and_damages_nothing(store, corpus, name):
    path = Path(store.path, name.format(segment=store.segments[1].id))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"not ours")
    found = verify(store.path, repair=True)
    assert (found["damaged"], found["unread"], found["set_aside"]) == ([], [], [])
    if name.startswith("segments"):
        (said,) = found["foreign"]
        assert str(path).startswith(str(Path(store.path, said)))
    corpus.check(Store.open(store.path), range(15))
    corpus.store(store.path, range(10, 20))
    if "{segment}" not in name:  # gc replaces whole segments
        gc(store.path, damaged=True)
        assert path.read_bytes() == b"not ours"
    assert info(store.path)["samples"] == 20


def test_a_foreign_link_in_a_segment_is_left_alone(store, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    link = Path(store.segments[0].where(), "link")
    link.symlink_to(tmp_path / "elsewhere")
    found = verify(store.path, repair=True)
    assert (found["damaged"], len(found["foreign"])) == ([], 1)
    assert link.is_symlink()


def edited(path, change):
    root = Path(path, "zarr.json")
    document = loads(root.read_bytes(), str(root))
    change(document)
    root.write_bytes(dumps(document))


def indented(document):
    """What a Zarr library leaves that writes an attribute of the root."""
    document["attributes"]["note"] = "of another program"
    document["consolidated_metadata"] = None


CHANGES = {
    "fingerprint": lambda document: document["attributes"]["recycle"].update(fingerprint="0" * 32),
    "no fingerprint": lambda document: document["attributes"]["recycle"].pop("fingerprint"),
    "version": lambda document: document["attributes"]["recycle"].update(version=7),
    "seal": lambda document: document["attributes"]["recycle"].update(seal="0" * 32),
    "no seal": lambda document: document["attributes"]["recycle"].pop("seal"),
    "provenance": lambda document: document["attributes"]["recycle"].update(provenance=3),
    "another program": indented,
}


@pytest.mark.parametrize("change", CHANGES)
def test_repair_mends_a_root_whose_recipe_the_segments_prove(store, corpus, change):
    edited(store.path, CHANGES[change])
    assert [damage["file"] for damage in verify(store.path)["damaged"]] == ["zarr.json"]
    found = verify(store.path, repair=True)
    assert (found["mended"], found["set_aside"]) == (["zarr.json"], [])
    assert found["segments"] == len(store.segments)
    again = Store.open(store.path, corpus.recipe)
    corpus.check(again, range(15))
    assert again.provenance == ({} if change == "provenance" else {"model": "tiny"})
    assert verify(store.path)["damaged"] == []
    assert len(info(store.path)["set_aside"]) == 1, "the old root is kept"


@pytest.mark.parametrize("change", CHANGES)
def test_a_root_that_may_be_mended_stays_if_its_proof_cannot_be_read(store, tmp_path, monkeypatch, change):
    monkeypatch.setattr("recycle_cli.store.patient.PAUSES", ())
    edited(store.path, CHANGES[change])
    before = tree(store.path)
    with failing(store.path, "open", name="segments/2"), pytest.raises(UnreadError):
        verify(store.path, repair=True)
    assert tree(store.path) == before
    for at in range(1, 8):
        copy = shutil.copytree(store.path, tmp_path / str(at))
        with failing(copy, "open", at=at) as calls, suppress(UnreadError):
            assert verify(str(copy), repair=True)["set_aside"] == []
        assert calls.failed
        assert verify(str(copy), repair=True)["set_aside"] == []
        assert len(Store.open(str(copy))) == len(store)


def test_a_root_of_another_recipe_or_a_newer_version_is_not_mended(store):
    edited(store.path, lambda document: document["attributes"]["recycle"]["recipe"].update(max_length=17))
    found = verify(store.path, repair=True)
    assert (found["mended"], found["set_aside"]) == ([], ["zarr.json"])
    shutil.rmtree(Path(store.path, "segments"))
    Path(store.path, "segments").mkdir()
    document = {"attributes": {"recycle": {"version": 2}}, "node_type": "group", "zarr_format": 3}
    Path(store.path, "zarr.json").write_bytes(dumps(sealed(document)))
    with pytest.raises(StoreError, match="upgrade it"):
        verify(store.path, repair=True)


def test_a_repair_that_is_cut_short_can_be_repeated(store):
    edited(store.path, CHANGES["fingerprint"])
    for call in ("write", "replace", "open"):
        with failing(store.path, call, errno.ENOSPC, name="zarr.json-"), pytest.raises(StorageError):
            verify(store.path, repair=True)
    assert verify(store.path, repair=True)["mended"] == ["zarr.json"]
    assert verify(store.path)["damaged"] == []
    assert not [path for path in Path(store.path).iterdir() if path.name.startswith(".")]


def test_the_rows_are_read_and_not_mapped(store, monkeypatch):
    """A disk that fails under a map would end the process without a word."""
    mapped = []
    memmap = np.memmap

    def seen(file, *arguments, **options):
        mapped.append(str(Path(f"/proc/self/fd/{file.fileno()}").readlink()))
        return memmap(file, *arguments, **options)

    monkeypatch.setattr(np, "memmap", seen)
    assert verify(store.path)["damaged"] == []
    assert not [name for name in mapped if "values" in name]
