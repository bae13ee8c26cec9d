"""Open files of others, but only regular ones: reading a pipe may wait for ever, and a device has no end."""

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

DOCUMENT_BYTES = 64 << 20
"""Most bytes that a JSON or TOML file may have."""

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


@contextmanager
def opened(path: str | Path) -> Iterator[IO[bytes]]:
    """A regular file, opened for reading; links to it are followed. Raises OSError, also for any other kind of file."""
    # Without O_NONBLOCK, opening a pipe would wait for ever for somebody to write to it.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
    if kind != stat.S_IFREG:
        os.close(descriptor)
        raise OSError(f"it is {_KINDS.get(kind, 'a special file')}, expected a regular file")
    with os.fdopen(descriptor, "rb") as file:
        yield file


def check_regular(path: str | Path) -> None:
    """Raise OSError for anything but a regular file, before a library opens it."""
    with opened(path):
        pass


def read_bytes(path: str | Path, limit: int) -> bytes:
    """The content of a regular file. Raises OSError, also for one of more than `limit` bytes."""
    with opened(path) as file:
        if (size := os.fstat(file.fileno()).st_size) > limit:
            raise OSError(f"it has {size:,} bytes, more than the {limit:,} that are read")
        return file.read(limit + 1)


def read_object(path: str | Path) -> dict[str, Any]:
    """The object in a JSON file. Raises OSError, and ValueError for anything else in it."""
    try:
        found = json.loads(read_bytes(path, DOCUMENT_BYTES))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("it holds no object")
    return found
