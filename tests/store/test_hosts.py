"""Several hosts on one folder: what a lock, a clock and a second gc mean where locks may not be seen from elsewhere.

Another host is a process with a host name of its own (a UTS namespace) and, if its kernel is to be another, too, with
the boot id of another (a file bound over Linux's).
"""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import pytest

from recycle_cli.errors import StorageError
from recycle_cli.store import Store, gc, info, liveness, verify
from recycle_cli.store.liveness import Claim, maintenance, writers
from recycle_cli.store.rewrite import remove_tree

BOOT_ID = "/proc/sys/kernel/random/boot_id"

WRITER = """
import sys, time
from store.corpora import Corpus
corpus = Corpus()
with corpus.store(sys.argv[1]).writer(segment_bytes=int(sys.argv[4])) as writer:
    for number in range(int(sys.argv[2]), int(sys.argv[3])):
        corpus.append(writer, [number])
    print("written", flush=True)
    sys.stdin.readline()
"""

MAINTENANCE = """
import sys
from pathlib import Path
from recycle_cli.store import liveness
liveness.BEAT_SECONDS = 0.05
with liveness.maintenance(Path(sys.argv[1]) / "tmp"):
    print("at work", flush=True)
    sys.stdin.readline()
"""


def elsewhere(name, *command, boot_id=None):
    """The command as it is given on another host; with a boot id, on one with another kernel."""
    bound = f"mount --bind {boot_id} {BOOT_ID} && " if boot_id else ""
    script = f'hostname {name} && {bound}exec "$@"'
    return ["unshare", "--uts", "--mount", "sh", "-c", script, "sh", *command]


@pytest.fixture(scope="module")
def boot_id(tmp_path_factory):
    path = tmp_path_factory.mktemp("other") / "boot_id"
    path.write_text("00000000-1111-2222-3333-444444444444\n")
    command = elsewhere("other", "cat", BOOT_ID, boot_id=path)
    if not shutil.which("unshare") or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("no other host can be made here: unshare --uts --mount is not permitted")
    return path


@pytest.fixture
def start(boot_id):
    """Start a program on a host of this name, on this kernel or another; wait for its first line."""
    running = []

    def started(name, code, *words, kernel="other"):
        bound = boot_id if kernel == "other" else None
        command = elsewhere(name, sys.executable, "-c", code, *map(str, words), boot_id=bound)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(["tests", "."])}
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True)
        running.append(process)
        return process

    yield started
    for process in running:
        process.kill()
        process.wait()
        process.stdout.close()
        with suppress(BrokenPipeError):
            process.stdin.close()


def begun(process):
    assert process.stdout.readline()
    return process


@contextmanager
def unseen_locks(monkeypatch):
    """As on a mount where each host has locks of its own (`local_lock=all`): every lock can be had."""
    with monkeypatch.context() as patch:
        patch.setattr(liveness, "try_lock", lambda descriptor: True)
        yield


def long_ago(path, seconds):
    for one in [path, *path.rglob("*")] if path.is_dir() else [path]:
        os.utime(one, (time.time() - seconds, time.time() - seconds))


def test_containers_of_one_kernel_see_each_others_locks(tmp_path, corpus, start):
    """So the leftovers of one that was killed go at once, whatever its host name was."""
    path = corpus.store(tmp_path / "s.zarr", range(10)).path
    writer = begun(start("container", WRITER, path, 100, 110, 1 << 20, kernel="this"))
    os.kill(writer.pid, signal.SIGSTOP)
    assert gc(path)["leftovers"] == 0
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    assert gc(path)["leftovers"] == 1
    assert info(path)["writers"] == info(path)["leftovers"] == []


@pytest.mark.parametrize("seen", [True, False])
def test_a_writer_on_another_host_is_left_alone_until_a_day_has_passed(tmp_path, corpus, start, seen, monkeypatch):
    path = corpus.store(tmp_path / "s.zarr", range(10)).path
    writer = begun(start("other", WRITER, path, 100, 110, 1 << 20))
    locks = nullcontext() if seen else unseen_locks(monkeypatch)
    with locks:
        assert gc(path)["leftovers"] == 0
        with monkeypatch.context() as patch:  # this machine's clock is two days ahead
            now = time.time
            patch.setattr(time, "time", lambda: now() + 2 * 86400)
            assert gc(path)["leftovers"] == 0
        writer.stdin.close()
        writer.wait()
        corpus.check(Store.open(path), [*range(10), *range(100, 110)])
        killed = begun(start("other", WRITER, path, 200, 210, 1 << 20))
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
        assert gc(path)["leftovers"] == 0  # nobody here can know
        (left,) = info(path)["writers"]
        for name in (left["name"], f"{left['name']}.lock"):
            long_ago(tmp_path / "s.zarr/tmp" / name, 86_400 + 60)
        assert gc(path)["leftovers"] == 1
    assert verify(path)["damaged"] == []


def test_writers_on_two_hosts_fill_one_store(tmp_path, corpus, start):
    path = corpus.store(tmp_path / "s.zarr").path
    at_once = [start(f"host{number}", WRITER, path, number * 40, number * 40 + 60, 300) for number in range(2)]
    for writer in at_once:
        begun(writer).stdin.close()
    assert [writer.wait() for writer in at_once] == [0, 0]
    store = Store.open(path)
    corpus.check(store, range(100))
    assert len(store) == 100
    assert verify(path)["damaged"] == []
    gc(path)
    store.refresh()
    assert sum(segment.summary.samples for segment in store.segments) == 100
    assert sorted(entry.name for entry in Path(path, "tmp").iterdir()) == ["maintenance", "zarr.json"]


def test_two_hosts_do_not_remove_segments_at_the_same_time(tmp_path, corpus, start, monkeypatch):
    """Also where neither sees the lock of the other."""
    path = corpus.store(tmp_path / "s.zarr", range(10)).path
    other = begun(start("other", MAINTENANCE, path))
    with pytest.raises(StorageError, match="wait for it"):
        gc(path)
    with unseen_locks(monkeypatch):
        with pytest.raises(StorageError, match=r"another host removed segments \d s ago"):
            gc(path)
        os.utime(tmp_path / "s.zarr/tmp/maintenance", (0, 0))
        time.sleep(0.3)  # it touches its lock meanwhile
        with pytest.raises(StorageError, match="another host"):
            gc(path)
        other.stdin.close()
        other.wait()
        gc(path)  # at once


def test_maintenance_that_was_killed_on_another_host_keeps_others_away_for_minutes_only(
    tmp_path, corpus, start, monkeypatch
):
    path = corpus.store(tmp_path / "s.zarr", range(10)).path
    other = begun(start("other", MAINTENANCE, path))
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    lock = tmp_path / "s.zarr/tmp/maintenance"
    for seconds in (0, liveness.FOREIGN_MAINTENANCE_SECONDS - 60):
        long_ago(lock, seconds)
        with pytest.raises(StorageError, match="another host"):
            gc(path)
    long_ago(lock, liveness.FOREIGN_MAINTENANCE_SECONDS + 60)
    gc(path)
    assert lock.read_bytes() == b""


def test_maintenance_that_was_killed_here_keeps_nobody_away(tmp_path, corpus):
    path = corpus.store(tmp_path / "s.zarr", range(10)).path
    (tmp_path / "s.zarr/tmp/maintenance").write_text(json.dumps({"host": liveness._host(), "pid": 1}))
    gc(path)


def test_a_lock_says_whose_it_is_from_the_moment_that_it_has_its_name(tmp_path, monkeypatch):
    rename, seen = Path.rename, []

    def looking(path, to):
        rename(path, to)
        if to.name.endswith(".lock"):
            seen.append((json.loads(to.read_text())["pid"], writers(tmp_path)[0].alive))

    monkeypatch.setattr(Path, "rename", looking)
    Claim(tmp_path).release()
    assert seen == [(os.getpid(), True)]


def test_a_claim_that_gc_takes_before_it_has_its_name_is_made_again(tmp_path, monkeypatch):
    lock, taken = liveness.try_lock, []

    def collecting(descriptor):
        if not taken:
            taken.extend(left.name for left in writers(tmp_path) if liveness.remove_dead(tmp_path, left.name))
        return lock(descriptor)

    monkeypatch.setattr(liveness, "try_lock", collecting)
    claim = Claim(tmp_path)
    assert len(taken) == 1
    assert writers(tmp_path)[0].alive
    claim.release()
    assert list(tmp_path.iterdir()) == []


def test_a_writer_that_was_taken_for_dead_while_it_had_nothing_to_write_goes_on(tmp_path, corpus):
    store = corpus.store(tmp_path / "s.zarr", range(5))
    with store.writer() as writer:
        for numbers in (range(5, 9), range(9, 12)):
            first = writer._claim.name
            scratch = tmp_path / "s.zarr/tmp"
            shutil.rmtree(scratch / first)
            (scratch / f"{first}.lock").unlink()
            corpus.append(writer, numbers)
            writer.seal()
            assert writer._claim.name != first
    corpus.check(Store.open(store.path), range(12))
    assert [entry.name for entry in (tmp_path / "s.zarr/tmp").iterdir()] == ["zarr.json"]


def test_a_rename_whose_answer_was_lost_has_sealed_the_segment(tmp_path, corpus, monkeypatch):
    """NFS asks again, and is told that there is nothing of that name."""
    store, rename = corpus.store(tmp_path / "s.zarr", range(5)), Path.rename

    def asked_twice(path, to):
        rename(path, to)
        if to.parent.name == "segments":
            rename(path, to)
        return to

    monkeypatch.setattr(Path, "rename", asked_twice)
    corpus.store(store.path, range(5, 9))
    monkeypatch.undo()
    corpus.check(Store.open(store.path), range(9))


def test_files_that_nfs_keeps_while_they_are_open_do_not_stop_gc(tmp_path, corpus, monkeypatch):
    """NFS gives a file that is removed while this host has it mapped another name, and the folder around it stays."""
    corpus.store(tmp_path / "s.zarr", range(20))
    path = corpus.store(tmp_path / "s.zarr", range(10, 30)).path
    unlink = os.unlink

    def silly(name, *, dir_fd=None):
        if str(name).startswith("c.0") and dir_fd is not None:
            os.rename(name, f".nfs{name}", src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        elif str(name).startswith(".nfs"):
            raise OSError(errno.EBUSY, "Device or resource busy")
        else:
            unlink(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", silly)
    assert gc(path)["duplicates"] == 10
    monkeypatch.undo()
    corpus.check(Store.open(path), range(30))
    assert gc(path)["leftovers"] == 1
    assert sorted(entry.name for entry in Path(path, "tmp").iterdir()) == ["maintenance", "zarr.json"]


def test_other_reasons_why_a_folder_stays_are_errors(tmp_path, monkeypatch):
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/file").touch()

    def refused(name, *, dir_fd=None):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "unlink", refused)
    with pytest.raises(PermissionError):
        remove_tree(tmp_path / "a")


def test_maintenance_that_failed_keeps_nobody_away(tmp_path):
    with pytest.raises(OSError, match="full"), maintenance(tmp_path):
        raise OSError("full")
    assert (tmp_path / "maintenance").read_bytes() == b""


def test_only_one_maintenance_record_is_kept(tmp_path):
    (tmp_path / "maintenance").write_text("x" * 500)
    with maintenance(tmp_path):
        assert json.loads((tmp_path / "maintenance").read_text())["pid"] == os.getpid()
