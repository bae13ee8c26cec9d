"""Tell live writers from dead ones by a lock that the kernel drops when its owner dies; process ids can be reused."""

import json
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread

from recycle_cli.disk import is_still_there, try_lock
from recycle_cli.errors import DamageError, StorageError
from recycle_cli.store.budget import bytes_below
from recycle_cli.store.files import read_document

LOCK_SUFFIX = ".lock"
GONE_SUFFIX = "-gone"
MAINTENANCE = "maintenance"
FOREIGN_IDLE_SECONDS = 86_400.0
"""A writer of another host counts as alive until its files have not changed for this long: we may not see its lock."""

BEAT_SECONDS = 30.0
"""How often whoever removes segments touches the lock file, so that other hosts see it at work."""

FOREIGN_MAINTENANCE_SECONDS = 600.0
"""After so long without a touch the maintenance of another host counts as dead, if its lock can be had."""

_UNIQUE_ID = re.compile(r"[0-9]{8}T[0-9]{12}-[0-9a-f]{12}")


def unique_id() -> str:
    """Make a unique name that sorts by time."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{secrets.token_hex(6)}"


def is_unique_id(name: str) -> bool:
    """Whether `unique_id` makes such names. What has another name is not ours to remove."""
    return bool(_UNIQUE_ID.fullmatch(name))


class Claim:
    """A writer's claim to its scratch folder `<name>/`, which lasts while it holds the lock on `<name>.lock`.

    A stopped process keeps its lock and a dead one loses it, even if another process now has its id.
    """

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._take()

    def _take(self) -> None:
        while True:
            self.name = unique_id()
            self.folder = self._scratch / self.name
            self._lock = self._scratch / f"{self.name}{LOCK_SUFFIX}"
            # It is written and locked before it has its name, so that nobody, on whatever host, sees it without.
            unnamed = self._scratch / unique_id()
            self._descriptor = os.open(unnamed, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o644)
            try:
                _write_owner(self._descriptor)
                # A gc may have taken it for a leftover, which a file without a lock is.
                if try_lock(self._descriptor) is not False and _renamed(unnamed, self._lock):
                    break
            except BaseException:
                os.close(self._descriptor)
                unnamed.unlink(missing_ok=True)
                raise
            os.close(self._descriptor)
        try:
            self.folder.mkdir()
        except BaseException:
            self.release()
            raise

    def ready(self) -> Path:
        """The folder, to begin a draft in. If a gc on another host has taken it for that of a dead writer, as it does
        after a day in which nothing was written, it is a new one."""
        if not (self.folder.is_dir() and is_still_there(self._lock, self._descriptor)):
            os.close(self._descriptor)
            self._take()
        return self.folder

    def release(self) -> None:
        """Remove the folder, with anything left in it, and release the lock. What cannot be removed is left to gc."""
        try:
            shutil.rmtree(self.folder, ignore_errors=True)
            with suppress(OSError):
                self._lock.unlink(missing_ok=True)
        finally:
            os.close(self._descriptor)


@dataclass(frozen=True, slots=True)
class Writer:
    """A scratch folder and its writer. `alive` is True if in doubt."""

    name: str
    alive: bool
    pid: int | None
    bytes: int


def writers(scratch: Path) -> list[Writer]:
    """List all writers that have a scratch folder or a lock, alive or dead; they are known by their names."""
    found = []
    names = {_bare(entry.name) for entry in scratch.iterdir()}
    for name in sorted(name for name in names if is_unique_id(name.removesuffix(GONE_SUFFIX))):
        with dead(scratch, name) as is_dead:
            found.append(Writer(name, not is_dead, _owner(scratch, name)[1], bytes_below(scratch / name)))
    return found


def remove_dead(scratch: Path, name: str) -> bool:
    """Remove what a writer left, unless it may be alive. Returns whether it was removed."""
    with dead(scratch, name) as is_dead:
        if not is_dead:
            return False
        folder = scratch / name
        if folder.is_dir() and not folder.is_symlink():
            # Rename the folder in one step: a writer wrongly taken for dead then fails to seal, and never seals a part.
            gone = scratch / f"{name}{GONE_SUFFIX}"
            if not name.endswith(GONE_SUFFIX):
                folder.rename(gone)
            shutil.rmtree(gone if gone.exists() else folder)
        else:
            folder.unlink(missing_ok=True)
        (scratch / f"{name}{LOCK_SUFFIX}").unlink(missing_ok=True)
        return True


@contextmanager
def dead(scratch: Path, name: str) -> Iterator[bool]:
    """Yield whether the writer is surely dead. Its lock is held inside the block, so that this stays true."""
    lock = scratch / f"{name}{LOCK_SUFFIX}"
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        yield True  # the lock file is made before the folder and removed after it
        return
    except OSError:
        yield False
        return
    try:
        ours = _owner(scratch, name)[0] in (_host(), None)
        locked = try_lock(descriptor)
        if locked and ours:
            yield True
        else:
            yield locked is not False and idle_seconds(lock) > FOREIGN_IDLE_SECONDS
    finally:
        os.close(descriptor)


@contextmanager
def maintenance(scratch: Path) -> Iterator[None]:
    """Hold the store's one lock for removing segments. Writers and readers do not need it.

    Its file says whose it is, and is touched now and then: if locks are not seen across hosts, that keeps others away.
    Raises StorageError if another process holds it or the file system has no locks.
    """
    path = scratch / MAINTENANCE
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        locked = try_lock(descriptor)
        if locked is None:
            raise StorageError(f"{scratch}: this file system has no locks; run `recycle store gc` where the disk is")
        if not locked:
            raise StorageError(f"{scratch}: another `recycle store gc` or `verify --repair` is at work; wait for it")
        _refuse_foreign(path)
        with suppress(OSError):  # a full disk is what gc is for
            _write_owner(descriptor)
        try:
            with _beating(descriptor):
                yield
        finally:
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _refuse_foreign(path: Path) -> None:
    """Raise StorageError if whoever removes segments on another host has touched the lock file a short while ago."""
    if _owner_in(path)[0] in (_host(), None):
        return
    idle = _clock(path.parent) - path.stat().st_mtime
    if idle < FOREIGN_MAINTENANCE_SECONDS:
        raise StorageError(
            f"{path.parent}: another host removed segments {idle:.0f} s ago, and its lock may not be seen here; wait "
            f"until its `gc`, `remove` or `verify --repair` ends, or is still for {FOREIGN_MAINTENANCE_SECONDS:.0f} s"
        )


@contextmanager
def _beating(descriptor: int) -> Iterator[None]:
    """Touch an open file every so many seconds until the block ends."""
    done = Event()

    def beat() -> None:
        while not done.wait(BEAT_SECONDS):
            with suppress(OSError):
                os.utime(descriptor)

    thread = Thread(target=beat, name="recycle-maintenance", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def idle_seconds(lock: Path) -> float:
    """Seconds since the writer last changed its lock file or a file below its scratch folder."""
    folder = lock.with_name(lock.name.removesuffix(LOCK_SUFFIX))
    return _clock(lock.parent) - max((stat.st_mtime for stat in _stats(lock, *folder.rglob("*"))), default=0.0)


def _clock(scratch: Path) -> float:
    """The time now by the clock that sets the times of files here, which may be a server's. If nothing can be written,
    the time of this machine."""
    probe = scratch / unique_id()
    try:
        descriptor = os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644)
    except OSError:
        return time.time()
    try:
        return os.fstat(descriptor).st_mtime
    finally:
        os.close(descriptor)
        probe.unlink(missing_ok=True)


def _host() -> str:
    """Identify the running kernel, within which locks are seen. A restart changes it and ends every writer."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return boot.read_text().strip() if boot.exists() else socket.gethostname()


def _owner(scratch: Path, name: str) -> tuple[str | None, int | None]:
    """Read a writer's host and process id; both are None if the lock file is incomplete."""
    return _owner_in(scratch / f"{name}{LOCK_SUFFIX}")


def _owner_in(lock: Path) -> tuple[str | None, int | None]:
    try:
        owner = json.loads(read_document(lock))
        return str(owner["host"]), int(owner["pid"])
    except (DamageError, OSError, ValueError, RecursionError, KeyError, TypeError):
        return None, None


def _write_owner(descriptor: int) -> None:
    """Write this host and process into a lock file, for other hosts to read at once."""
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps({"host": _host(), "pid": os.getpid()}).encode(), 0)
    os.fsync(descriptor)


def _renamed(path: Path, new: Path) -> bool:
    """Give a file another name. Returns False if it is gone."""
    try:
        path.rename(new)
    except FileNotFoundError:
        return False
    return True


def _bare(name: str) -> str:
    return name.removesuffix(LOCK_SUFFIX)


def _stats(*paths: Path) -> Iterator[os.stat_result]:
    """Yield the status of those paths that still exist."""
    for path in paths:
        with suppress(FileNotFoundError):
            yield path.lstat()
