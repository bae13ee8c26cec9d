"""A lock that the kernel drops when its owner dies, however that happens; process ids can be reused."""

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
            self.supported = _lock(self._descriptor)
            # Between opening and locking it, its owner may have ended and removed it.
            if not os.path.samestat(path.stat(), os.fstat(self._descriptor)):
                raise BlockingIOError(errno.EWOULDBLOCK, "another process has just ended its work", str(path))
        except FileNotFoundError:
            os.close(self._descriptor)
            raise BlockingIOError(errno.EWOULDBLOCK, "another process has just ended its work", str(path)) from None
        except BaseException:
            os.close(self._descriptor)
            raise

    def release(self) -> None:
        """Let others have it."""
        os.close(self._descriptor)


def is_locked(path: Path) -> bool:
    """Whether another process holds the lock now."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        _lock(descriptor)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _lock(descriptor: int) -> bool:
    """Lock the file. Returns False if the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        return False
    return True
