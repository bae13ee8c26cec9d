"""Write files that survive a power cut: they are synced before they get their name, and their folder afterwards."""

import ctypes
import errno
import os
import re
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from recycle_cli.disk.locks import is_still_there, try_lock

PARTIAL = ".partial"
"""The ending of a file that is not whole yet."""

_RANDOM = 6
"""Bytes of the random part of a temporary name."""

_SYNCS = 8
_LONGEST = 200
"""Bytes of a file's name that its temporary name keeps, since file systems take 255 in all."""

_HERE = -100
_EXCHANGE = 2
"""AT_FDCWD and RENAME_EXCHANGE of Linux."""

_UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A new file beside `target`, under a temporary name. If the block succeeds the file is synced and replaces
    `target` in one step; else it is removed. Raises OSError.

    The file is locked meanwhile. One that a killed process has left for the same target is not, and goes first.
    """
    kept = os.fsdecode(os.fsencode(target.name)[:_LONGEST])
    with suppress(OSError):
        _remove_dead(target.parent, kept)
    partial, held = _new_partial(target, kept)
    try:
        yield partial
        sync(partial)
        partial.replace(target)
        sync(target.parent)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        os.close(held)


def _new_partial(target: Path, kept: str) -> tuple[Path, int]:
    """A new file and its descriptor, which holds a lock on it if the file system has locks."""
    while True:
        partial = target.with_name(f".{kept}.{secrets.token_hex(_RANDOM)}{PARTIAL}")
        # O_EXCL: an existing file or link is never written to.
        held = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666)
        try:
            # Until it was locked, another process may have taken it for a dead one's.
            if try_lock(held) is None or is_still_there(partial, held):
                return partial, held
        except BaseException:
            os.close(held)
            raise
        os.close(held)


def _remove_dead(folder: Path, kept: str) -> None:
    """Remove the unfinished files of a target whose writers are dead: nobody holds their lock."""
    ours = re.compile(rf"\.{re.escape(kept)}\.[0-9a-f]{{{2 * _RANDOM}}}{re.escape(PARTIAL)}")
    with os.scandir(folder) as entries:
        found = [Path(one.path) for one in entries if ours.fullmatch(one.name) and one.is_file(follow_symlinks=False)]
    for partial in found:
        descriptor = os.open(partial, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            # Its writer may have put it in place between the two.
            if try_lock(descriptor) and is_still_there(partial, descriptor):
                partial.unlink()
        finally:
            os.close(descriptor)


def sync(*paths: Path) -> None:
    """Flush files and folders to the disk, several at a time, so that the file system commits them together."""
    if len(paths) == 1:
        _sync(paths[0])
        return
    with ThreadPoolExecutor(_SYNCS) as pool:
        list(pool.map(_sync, paths))


def sync_tree(folder: Path) -> None:
    """Flush a folder and all that lies below it to the disk."""
    sync(folder, *(path for path in folder.rglob("*") if not path.is_symlink()))


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, synced. Raises OSError."""
    made = []
    while not folder.exists():
        made.append(folder)
        folder = folder.parent
    for one in reversed(made):
        one.mkdir(exist_ok=True)
        sync(one.parent)


def exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step. Returns False if this system or file system cannot; raises OSError."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    if rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _UNSUPPORTED:
        return False
    raise OSError(number, os.strerror(number), str(other))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
