"""Write files that survive a power cut: they are synced before they get their name, and their folder afterwards."""

import ctypes
import errno
import os
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

PARTIAL = ".partial"
"""The ending of a file that is not whole yet."""

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
    `target` in one step; else it is removed. Raises OSError."""
    kept = os.fsdecode(os.fsencode(target.name)[:_LONGEST])
    partial = target.with_name(f".{kept}.{secrets.token_hex(6)}{PARTIAL}")
    # O_EXCL: an existing file or link is never written to.
    os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666))
    try:
        yield partial
        sync(partial)
        partial.replace(target)
        sync(target.parent)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


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
