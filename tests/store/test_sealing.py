"""A crash leaves nothing visible that was not synced first, and nothing half visible."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from recycle_cli.errors import DamageError, Interrupted, StorageError
from recycle_cli.keys import KEY_BYTES
from recycle_cli.store import EncodedRows, Store, verify
from recycle_cli.store.files import HashedFile

from .corpora import Corpus


def test_everything_is_synced_before_it_is_visible(tmp_path, corpus, monkeypatch):
    """The order of the calls: sync every file and folder of the segment, rename it, sync both parent folders."""
    events = []
    rename = Path.rename
    opened = Path("/proc/self/fd")
    monkeypatch.setattr(os, "fsync", lambda descriptor: events.append(str((opened / str(descriptor)).readlink())))
    monkeypatch.setattr(Path, "rename", lambda path, to: (events.append(f"{path} -> {to}"), rename(path, to))[1])
    store = corpus.store(tmp_path / "s.zarr")
    with store.writer() as writer:
        events.clear()
        corpus.append(writer, range(5))
        scratch = writer._draft.folder
    (segment,) = [path for path in (tmp_path / "s.zarr/segments").iterdir() if path.is_dir()]
    seal = events.index(f"{scratch} -> {segment}")
    inside = {scratch, *(scratch / path.relative_to(segment) for path in segment.rglob("*"))}
    assert {Path(event) for event in events[:seal]} == inside
    assert set(events[seal + 1 :]) == {str(segment.parent), str(scratch.parent)}


def test_a_failed_append_leaves_the_samples_before_it_whole(tmp_path, monkeypatch):
    corpus = Corpus(cuts=("1", "2"))
    store = corpus.store(tmp_path / "s.zarr")
    write, calls = HashedFile.write, []

    def failing(self, data):
        calls.append(self.path)
        if len(calls) == 6:  # the second array of the third append
            os.write(self._file.fileno(), b"part of a row")
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, data)

    def fill():
        with store.writer() as writer:
            for number in range(9):
                corpus.append(writer, [number])

    monkeypatch.setattr(HashedFile, "write", failing)
    with pytest.raises(StorageError, match="disk is full"):
        fill()
    monkeypatch.undo()
    store.refresh()
    assert len(store) == 2
    corpus.check(store, range(2))
    assert verify(store.path)["damaged"] == []


@pytest.mark.parametrize("codec", ["none", "lz4"])
def test_a_failed_seal_gives_its_space_back(tmp_path, monkeypatch, codec):
    corpus = Corpus()
    store = corpus.store(tmp_path / "s.zarr", range(5), codec=codec)

    def full(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    def fill():
        with store.writer(codec=codec) as writer:
            corpus.append(writer, range(5, 9))
            monkeypatch.setattr(HashedFile, "write", full)

    with pytest.raises(StorageError, match="disk is full"):
        fill()
    assert [entry.name for entry in (tmp_path / "s.zarr/tmp").iterdir()] == ["zarr.json"]
    assert len(Store.open(store.path)) == 5


def test_an_interruption_just_after_the_rename_is_an_interruption(tmp_path, corpus, monkeypatch):
    """The draft is gone then, since it is a segment; looking for it must not hide what stopped the command."""
    store = corpus.store(tmp_path / "s.zarr", range(5))
    rename = Path.rename

    def interrupted(path, to):
        rename(path, to)
        raise Interrupted

    def fill():
        with store.writer() as writer:
            corpus.append(writer, range(5, 9))
            monkeypatch.setattr(Path, "rename", interrupted)

    with pytest.raises(Interrupted):
        fill()
    monkeypatch.undo()
    corpus.check(Store.open(store.path), range(9))


def test_a_segment_is_sealed_at_its_age_too(tmp_path, corpus):
    store = corpus.store(tmp_path / "s.zarr", range(20), batch=5, segment_seconds=0)
    assert len(store.segments) == 4


def test_a_store_made_by_two_at_once_is_one_store(tmp_path, corpus, monkeypatch):
    """If another writer makes the root at the last moment, its root stays."""
    link = os.link

    def beaten(source, target):
        if str(target).endswith("s.zarr/zarr.json") and not Path(target).exists():
            Path(target).write_bytes(Path(source).read_bytes().replace(b"ours", b"them"))
        link(source, target)

    monkeypatch.setattr(os, "link", beaten)
    with pytest.raises(DamageError, match="seal"):  # the error of the forged root proves that it was read
        Store.create_or_open(str(tmp_path / "s.zarr"), corpus.recipe, {"model": "ours"})
    assert b"them" in (tmp_path / "s.zarr/zarr.json").read_bytes()


def test_a_creation_cut_short_is_taken_up(tmp_path, corpus):
    (tmp_path / "s.zarr/segments").mkdir(parents=True)
    (tmp_path / "s.zarr/.zarr.json-1").touch()
    corpus.check(corpus.store(tmp_path / "s.zarr", range(3)), range(3))


def test_lists_of_rows_must_fit_their_lengths(tmp_path, corpus):
    store = corpus.store(tmp_path / "s.zarr")
    keys = np.zeros((2, KEY_BYTES), np.uint8)
    with store.writer() as writer:
        for lengths, rows in (([1, 2], 4), ([1], 1), ([-1, 2], 1)):
            with pytest.raises(AssertionError):
                writer.append(keys, keys, np.array(lengths), {"2": EncodedRows(np.zeros((rows, 8), "<f2"))})
    assert len(Store.open(store.path)) == 0
