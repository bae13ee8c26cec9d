"""Files outside the store: what is written is kept apart from what is read, whole, locked, and digested."""

import json
import os
import subprocess
import sys

import pytest

from recycle_cli.disk import (
    OPEN_SEAL,
    Lock,
    Read,
    digest,
    exchange,
    is_locked,
    is_sealed,
    keep_apart,
    opened,
    read_bytes,
    read_object,
    replacing,
    seal,
)
from recycle_cli.errors import UsageError


@pytest.fixture
def corpus(tmp_path):
    """A file that is read, with a link and a hard link to it, and a folder that is read whole."""
    (tmp_path / "read.csv").write_text("text\n")
    (tmp_path / "link.csv").symlink_to("read.csv")
    (tmp_path / "twin.csv").hardlink_to(tmp_path / "read.csv")
    (tmp_path / "store").mkdir()
    (tmp_path / "alias").symlink_to("store")
    return tmp_path


@pytest.mark.parametrize("name", ["read.csv", "link.csv", "twin.csv", "store/../read.csv"])
def test_what_is_read_is_not_written_under_any_name(corpus, name):
    with pytest.raises(UsageError, match=r"--output .*, which is read; choose another place"):
        keep_apart([Read(str(corpus / "read.csv"))], {"--output": str(corpus / name)})


@pytest.mark.parametrize("name", ["store/new.csv", "alias/deep/new.csv"])
def test_nothing_is_written_into_a_folder_that_is_read_whole(corpus, name):
    with pytest.raises(UsageError, match="all of which is read"):
        keep_apart([Read(str(corpus / "store"), whole=True)], {"--output": str(corpus / name)})
    keep_apart([Read(str(corpus / "store"))], {"--output": str(corpus / name)})


def test_two_options_do_not_write_one_file(corpus):
    with pytest.raises(UsageError, match=r"--failures .* is --output too"):
        keep_apart([], {"--output": str(corpus / "new"), "--failures": str(corpus / "alias" / ".." / "new")})
    keep_apart([Read("s3://bucket/x")], {"--output": str(corpus / "new"), "--store": "s3://bucket/x"})


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    target = tmp_path / ("x" * 250)
    target.write_text("old")

    def fails():
        with replacing(target) as partial:
            partial.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert target.read_text() == "old"
    with replacing(target) as partial:
        partial.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_two_folders_are_exchanged(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "name").write_text(name)
    if not exchange(tmp_path / "one", tmp_path / "other"):
        pytest.skip("this file system exchanges no folders")
    assert [(tmp_path / name / "name").read_text() for name in ("one", "other")] == ["other", "one"]
    with pytest.raises(OSError, match="No such file"):
        exchange(tmp_path / "one", tmp_path / "none")


def test_a_lock_is_held_until_it_is_released(tmp_path):
    path = tmp_path / "lock"
    assert not is_locked(path)
    lock = Lock(path)
    if not lock.supported:
        pytest.skip("this file system has no locks")
    assert is_locked(path)
    with pytest.raises(BlockingIOError):
        Lock(path)
    lock.release()
    assert not is_locked(path)
    Lock(path).release()


@pytest.mark.parametrize("size", [0, 100, (4 << 20) - 40, 9 << 20])
def test_a_file_carries_its_own_digest(tmp_path, size):
    """The digest lies at the beginning, across the bound of two blocks that are read, and behind several blocks."""
    path = tmp_path / "sealed"
    path.write_bytes(b"x" * size + OPEN_SEAL.encode() + b"end")
    seal(path)
    assert is_sealed(path)
    content = path.read_bytes()
    for at in (0, size + len(OPEN_SEAL) - 1, len(content) - 1):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        assert not is_sealed(path)
    path.write_bytes(content)
    assert is_sealed(path)
    assert digest(path)["bytes"] == len(content)


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, kind in ((tmp_path / "pipe", "a pipe"), (tmp_path, "a folder"), ("/dev/null", "a device")):
        with pytest.raises(OSError, match=f"it is {kind}, expected a regular file"), opened(path):
            pass


@pytest.mark.parametrize(
    ("content", "problem"),
    [("[1]", "it holds no object"), ("x", "Expecting value"), ('{"a": ' * 100_000, "it is nested too deeply")],
)
def test_a_file_without_an_object_is_a_value_error(tmp_path, content, problem):
    path = tmp_path / "file.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=problem):
        read_object(path)
    path.write_text(json.dumps({"a": 1}))
    assert read_object(path) == {"a": 1}
    with pytest.raises(OSError, match="more than the 3 that are read"):
        read_bytes(path, 3)


DYING = """
import os, signal, sys
from pathlib import Path
from recycle_cli.disk import replacing
with replacing(Path(sys.argv[1])) as partial:
    partial.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_unfinished_goes_with_the_next(tmp_path):
    """Not so what another is writing, nor what merely has a name like it."""
    target = tmp_path / "out.[1].csv"
    subprocess.run([sys.executable, "-c", DYING, str(target)], check=False)
    (dead,) = tmp_path.iterdir()
    assert dead.read_text() == "half"
    others = [".out.[1].csv.notes.partial", ".out.[1].csv.0123456789ab.partial.txt", ".out.1.csv.0123456789ab.partial"]
    for name in others:
        (tmp_path / name).write_text("mine")
    (tmp_path / ".out.[1].csv.0123456789ab.partial").mkdir()
    (tmp_path / ".out.[1].csv.ba9876543210.partial").symlink_to(others[0])
    kept = {entry.name for entry in tmp_path.iterdir()} - {dead.name}
    with replacing(target) as first, replacing(target) as second:
        assert {entry.name for entry in tmp_path.iterdir()} == kept | {first.name, second.name}
        second.write_text("two")
        first.write_text("one")
    assert {entry.name for entry in tmp_path.iterdir()} == kept | {target.name}
    assert target.read_text() == "one"
