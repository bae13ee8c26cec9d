"""An export that fails is one line and leaves nothing behind."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from recycle_cli.errors import StorageError, UsageError
from recycle_cli.store import Store, export

from .corpora import Corpus
from .faults import failing

FORMATS = {"safetensors": "x.safetensors", "numpy": "x"}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """About 1 MB of rows."""
    return Corpus("int8", shape=(1024,)).store(tmp_path_factory.mktemp("store") / "s.zarr", range(200)).path


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("call", ["pwrite", "fsync", "open", "link", "rename", "mkdir", "write"])
def test_a_call_that_fails_leaves_nothing_behind(store, tmp_path, format, code, call):
    with failing(tmp_path, call, code, times=1) as calls:
        if (format == "numpy" and call == "link") or (format == "safetensors" and call in ("mkdir", "write", "rename")):
            assert export(store, str(tmp_path / "x"), format=format)
            return
        with pytest.raises(StorageError) as caught:
            export(store, str(tmp_path / "x"), format=format)
    assert calls.failed
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", FORMATS)
def test_a_disk_that_is_too_small_is_one_line(store, small_disk, format, monkeypatch):
    """A real one: nothing of the export may be mapped, since writing to the map would end the process."""
    ballast = small_disk / "ballast"
    with ballast.open("wb") as file:
        os.posix_fallocate(
            file.fileno(), 0, os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize - 300_000
        )
    command = [sys.executable, "-m", "recycle_cli", "store", "export", store, str(small_disk / FORMATS[format])]
    done = subprocess.run([*command, "--format", format], capture_output=True, text=True, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (4, 1)
    assert "disk is full" in done.stderr
    assert list(small_disk.iterdir()) == [ballast]


def test_what_appears_meanwhile_is_not_overwritten(store, tmp_path, monkeypatch):
    for format, name in FORMATS.items():
        out = tmp_path / name

        def beaten(self, *arguments, out=out, format=format, gather=Store.gather_rows):
            if not out.exists():
                out.mkdir() if format == "numpy" else None
                (out / "mine" if format == "numpy" else out).write_text("mine")
            return gather(self, *arguments)

        monkeypatch.setattr(Store, "gather_rows", beaten)
        with pytest.raises((UsageError, StorageError)):
            export(store, str(out), format=format)
        monkeypatch.undo()
        assert (out / "mine" if format == "numpy" else out).read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == len(FORMATS)


def test_a_link_to_nowhere_is_not_written_through(store, tmp_path):
    (tmp_path / "x").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="exists already"):
        export(store, str(tmp_path / "x"))
    assert not (tmp_path / "elsewhere").exists()


CUT = """
import os, sys
from recycle_cli.errors import DamageError
from recycle_cli.store import Store
store = Store.open(sys.argv[1])
positions = store.positions()
store.gather("2", positions)
for path in store.place.root.glob(sys.argv[2]):
    os.truncate(path, int(sys.argv[3]))
import time
time.sleep(0.1)
try:
    store.gather("2", positions) if "cuts" in sys.argv[2] or "offsets" in sys.argv[2] else store.keys(positions)
    print("read")
except DamageError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("file", "size", "said"),
    [
        ("segments/*/cuts/2/values/c.0.0", 0, "shorter"),
        ("segments/*/cuts/2/values/c.0.0", 5000, "shorter"),
        ("segments/*/cuts/2/scales/c.0", 0, "shorter"),
        ("segments/*/keys/c.0.0", 0, "shorter"),
        ("segments/*/offsets/c.0", 0, "read"),
    ],
)
def test_a_segment_cut_short_while_it_is_mapped_is_an_error(tmp_path, file, size, said):
    path = Corpus("int8", shape=(64,)).store(tmp_path / "s.zarr", range(40)).path
    done = subprocess.run(
        [sys.executable, "-c", CUT, path, file, str(size)], capture_output=True, text=True, check=False
    )
    assert done.returncode != -signal.SIGBUS
    assert said in done.stdout, done
    assert said == "read" or str(Path(path, "segments")) in done.stdout
