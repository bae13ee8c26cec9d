"""Who is still writing: a lock that the kernel drops when its owner dies, whatever became of the process id."""

import errno
import fcntl
import json
import os
import secrets
import socket
import time
from datetime import UTC, datetime
from pathlib import Path

LOCK_SUFFIX = ".lock"
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
            try:
                _lock(self._descriptor)
            except BlockingIOError:
                os.close(self._descriptor)
                continue
            # Between creating and locking, a collector may have taken the lock and the file away.
            if _still_there(self._lock, self._descriptor):
                break
            os.close(self._descriptor)
        os.write(self._descriptor, json.dumps({"host": _host(), "pid": os.getpid()}).encode())
        self.folder.mkdir()

    def release(self) -> None:
        """Give the folder and the lock back; what is left in the folder is not wanted any more."""
        self.folder.rmdir()
        self._lock.unlink(missing_ok=True)
        os.close(self._descriptor)


def is_alive(lock: Path) -> bool:
    """Whether the writer that made `lock` may still be writing. Errs on the side of yes."""
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    with os.fdopen(descriptor, "rb") as file:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locks_work = True
        except BlockingIOError:
            return True
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            locks_work = False
        ours = _owner_host(file.read(4096)) in (_host(), None)
        return not (ours and locks_work) and idle_seconds(lock) < FOREIGN_IDLE_SECONDS


def idle_seconds(lock: Path) -> float:
    """Seconds since anything of the writer changed: its lock file or a file below its scratch folder."""
    folder = lock.with_name(lock.name.removesuffix(LOCK_SUFFIX))
    newest = max((path.lstat().st_mtime for path in (lock, *folder.rglob("*")) if path.exists()), default=0.0)
    return time.time() - newest


def _lock(descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise


def _still_there(path: Path, descriptor: int) -> bool:
    try:
        return path.stat().st_ino == os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False


def _host() -> str:
    """The running kernel, within which locks are seen; a restart ends every writer and changes it."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return boot.read_text().strip() if boot.exists() else socket.gethostname()


def _owner_host(data: bytes) -> str | None:
    try:
        return str(json.loads(data)["host"])
    except (ValueError, KeyError, TypeError):
        return None  # cut short at birth: the writer died between creating the file and writing it
