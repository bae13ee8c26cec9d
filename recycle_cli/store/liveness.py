"""Who is still writing: a lock that the kernel drops when its owner dies, whatever became of the process id."""

import errno
import fcntl
import json
import os
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from recycle_cli.errors import DamageError, StorageError
from recycle_cli.store.budget import bytes_below
from recycle_cli.store.files import read_document
from recycle_cli.store.layout import DOCUMENT

LOCK_SUFFIX = ".lock"
GONE_SUFFIX = "-gone"
MAINTENANCE = "maintenance"
FOREIGN_IDLE_SECONDS = 86_400.0
"""A writer of another host counts as alive until nothing of it has changed for this long: its lock may not reach us."""

_UNSUPPORTED = (errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS, errno.EINVAL)


def unique_id() -> str:
    """A name that sorts by time and is never given twice."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{secrets.token_hex(6)}"


class Claim:
    """A writer's hold on its scratch folder `<name>/`, for as long as it holds the lock on `<name>.lock`.

    A stopped process keeps its lock, a dead one does not, and a process id that is used again changes nothing.
    """

    def __init__(self, scratch: Path) -> None:
        while True:
            self.name = unique_id()
            self.folder = scratch / self.name
            self._lock = scratch / f"{self.name}{LOCK_SUFFIX}"
            self._descriptor = os.open(self._lock, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o644)
            # Between creating and locking, a collector may have taken the lock and the file away.
            if _lock(self._descriptor) is not False and _still_there(self._lock, self._descriptor):
                break
            os.close(self._descriptor)
        os.write(self._descriptor, json.dumps({"host": _host(), "pid": os.getpid()}).encode())
        self.folder.mkdir()

    def release(self) -> None:
        """Give the folder and the lock back; what is left in the folder is not wanted any more."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.unlink(missing_ok=True)
        os.close(self._descriptor)


@dataclass(frozen=True, slots=True)
class Writer:
    """A scratch folder and who made it. `alive` errs on the side of yes."""

    name: str
    alive: bool
    pid: int | None
    bytes: int


def writers(scratch: Path) -> list[Writer]:
    """Everybody who has a scratch folder or a lock, alive or dead."""
    found = []
    for name in sorted({_bare(entry.name) for entry in scratch.iterdir() if entry.name not in (DOCUMENT, MAINTENANCE)}):
        with dead(scratch, name) as is_dead:
            found.append(Writer(name, not is_dead, _owner(scratch, name)[1], bytes_below(scratch / name)))
    return found


def remove_dead(scratch: Path, name: str) -> bool:
    """Remove what the writer left, unless it may be alive: whether it was removed."""
    with dead(scratch, name) as is_dead:
        if not is_dead:
            return False
        folder = scratch / name
        if folder.is_dir() and not folder.is_symlink():
            # One step takes the folder away, so that a writer judged wrongly fails to seal, and never seals a part.
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
    """Whether the writer is surely dead; its lock is held inside the block, so that this stays true."""
    lock = scratch / f"{name}{LOCK_SUFFIX}"
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        yield True  # the lock is made before the folder and goes after it
        return
    except OSError:
        yield False
        return
    try:
        ours = _owner(scratch, name)[0] in (_host(), None)
        locked = _lock(descriptor)
        if locked and ours:
            yield True
        else:
            yield locked is not False and idle_seconds(lock) > FOREIGN_IDLE_SECONDS
    finally:
        os.close(descriptor)


@contextmanager
def maintenance(scratch: Path) -> Iterator[None]:
    """Hold the store's one lock for those who remove segments; writers and readers need none.

    Raises StorageError where another holds it, or the file system has no locks.
    """
    descriptor = os.open(scratch / MAINTENANCE, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        locked = _lock(descriptor)
        if locked is None:
            raise StorageError(f"{scratch}: this file system has no locks; run `recycle store gc` where the disk is")
        if not locked:
            raise StorageError(f"{scratch}: another `recycle store gc` or `verify --repair` is at work; wait for it")
        yield
    finally:
        os.close(descriptor)


def idle_seconds(lock: Path) -> float:
    """Seconds since anything of the writer changed: its lock file or a file below its scratch folder."""
    folder = lock.with_name(lock.name.removesuffix(LOCK_SUFFIX))
    return time.time() - max((stat.st_mtime for stat in _stats(lock, *folder.rglob("*"))), default=0.0)


def _lock(descriptor: int) -> bool | None:
    """Whether the lock is ours now; None where the file system has none."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        return None
    return True


def _still_there(path: Path, descriptor: int) -> bool:
    try:
        return path.stat().st_ino == os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False


def _host() -> str:
    """The running kernel, within which locks are seen; a restart ends every writer and changes it."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return boot.read_text().strip() if boot.exists() else socket.gethostname()


def _owner(scratch: Path, name: str) -> tuple[str | None, int | None]:
    """Host and process id of a writer; nothing where the lock was cut short at birth."""
    try:
        owner = json.loads(read_document(scratch / f"{name}{LOCK_SUFFIX}"))
        return str(owner["host"]), int(owner["pid"])
    except (DamageError, OSError, ValueError, RecursionError, KeyError, TypeError):
        return None, None


def _bare(name: str) -> str:
    return name.removesuffix(LOCK_SUFFIX)


def _stats(*paths: Path) -> Iterator[os.stat_result]:
    """Of those that have not gone since they were listed."""
    for path in paths:
        with suppress(FileNotFoundError):
            yield path.lstat()
