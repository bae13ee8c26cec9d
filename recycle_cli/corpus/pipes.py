"""Records from a pipe, stdin or a named one. A pipe can be read only once, so its content is spooled to a file."""

import atexit
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO

from recycle_cli.disk import expanded
from recycle_cli.errors import DataError, StorageError
from recycle_cli.reports import bar, say

STDIN = "-"
"""Names stdin where a file is expected."""

PIECE = 1 << 20
"""Bytes that are copied at once."""


def is_pipe(source: str) -> bool:
    """Whether a source can be read only once: stdin, a named pipe, a terminal."""
    if source == STDIN:
        return True
    path = Path(expanded(source))
    try:
        mode = path.stat().st_mode
        return stat.S_ISFIFO(mode) or (stat.S_ISCHR(mode) and _is_terminal(path))
    except (OSError, ValueError):
        return False


def _is_terminal(device: Path) -> bool:
    """Whether a device is a terminal. Reading another device may never end."""
    descriptor = os.open(device, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        return os.isatty(descriptor)
    finally:
        os.close(descriptor)


def name_of(source: str) -> str:
    """The name of a source in messages."""
    return "stdin" if source == STDIN else source


def spooled(source: str) -> Path:
    """The file with the content of a source: a copy of a pipe's, else the source itself."""
    return _copied(source) if is_pipe(source) else Path(source)


@cache
def _copied(source: str) -> Path:
    """The content of a pipe, in a file that is removed when the process ends. Raises DataError, StorageError."""
    with _opened(source) as content:
        if content.isatty():
            say(f"reading records from the terminal ({name_of(source)}); end them with Ctrl-D")
        folder = tempfile.mkdtemp(prefix="recycle-stdin-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        path = Path(folder, "records")
        try:
            with path.open("wb") as file, bar(f"reading {name_of(source)} (KiB)") as progress:
                while piece := _read(content, source):
                    file.write(piece)
                    progress.update(len(piece) // 1024)
        except OSError as error:
            raise StorageError(
                f"{name_of(source)} cannot be kept in {tempfile.gettempdir()} ({error.strerror}); set TMPDIR to a "
                "folder on a larger disk"
            ) from error
    return path


def _read(content: IO[bytes], source: str) -> bytes:
    try:
        return os.read(content.fileno(), PIECE)
    except OSError as error:
        raise DataError(f"{name_of(source)} cannot be read ({error.strerror})") from error


@contextmanager
def _opened(source: str) -> Iterator[IO[bytes]]:
    try:
        if source == STDIN:
            yield sys.stdin.buffer
            return
        with Path(expanded(source)).open("rb", buffering=0) as file:
            yield file
    except (OSError, AttributeError) as error:
        # A process may have been started without a stdin, which is None then.
        said = getattr(error, "strerror", None) or "it is closed"
        raise DataError(f"{name_of(source)}: cannot be read ({said})") from error
