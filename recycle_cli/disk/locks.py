"""Locks that the kernel drops when their owner dies, in whatever way."""

import errno
import fcntl
import os
from pathlib import Path

_UNSUPPORTED = (errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS, errno.EINVAL)


class Lock:
    """A lock file that is held until `release`, or until the process ends.

    Raises BlockingIOError if another process holds it, or has just removed it. `supported` is False if the file system
    has no locks, so that nothing keeps others away.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        try:
            locked = try_lock(self._descriptor)
            # Between opening and locking it, its owner may have ended and removed it.
            if locked is False or not is_still_there(path, self._descriptor):
                raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK), str(path))
        except BaseException:
            os.close(self._descriptor)
            raise
        self.supported = locked is not None

    def release(self) -> None:
        """Release the lock; its file stays."""
        os.close(self._descriptor)


def is_locked(path: Path) -> bool:
    """Whether another process holds the lock now."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return try_lock(descriptor) is False
    finally:
        os.close(descriptor)


def try_lock(descriptor: int) -> bool | None:
    """Try to lock an open file. Returns whether we hold the lock now, or None if the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        return None
    return True


def is_still_there(path: Path, descriptor: int) -> bool:
    """Whether the open file is the one that has this name now."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
