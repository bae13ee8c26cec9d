"""Make calls to the operating system fail, for those below one folder.

The calls are those that Python makes through `os` and `io.open`, which is how the store makes all of its own.
"""

import errno
import io
import os
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

BY_PATH = ("mkdir", "rename", "replace", "unlink", "rmdir", "link", "chmod", "scandir", "listdir", "open")
BY_DESCRIPTOR = ("read", "pread", "write", "pwrite", "fsync", "fdatasync", "ftruncate", "posix_fallocate")
CHANGING = ("open", "write", "pwrite", "fsync", "mkdir", "rename", "replace", "unlink", "rmdir", "link", "chmod")
"""Calls that a command that changes something makes."""


class Calls:
    """How often each call was made below the folder, and how often one was made to fail."""

    def __init__(self):
        self.counts, self.failed = Counter(), 0


def _where(call, target, options):
    """The path that a call is about; an empty one if there is none."""
    if call in BY_DESCRIPTOR or isinstance(target, int):
        try:
            return str(Path(f"/proc/self/fd/{target}").readlink())
        except OSError:
            return ""
    path = os.fspath(target)
    folder = options.get("dir_fd")
    return (
        str(Path(Path(f"/proc/self/fd/{folder}").readlink(), path))
        if folder is not None
        else str(Path(path).absolute())
    )


@contextmanager
def failing(folder, call=None, code=errno.EIO, *, at=None, name="", times=None):
    """Make the `at`-th or each `call` below `folder` on a path with `name` in it fail, at most `times` times."""
    calls = Calls()
    saved = {one: getattr(os, one) for one in (*BY_PATH, *BY_DESCRIPTOR)}
    opened = io.open

    def counted(one, real):
        def run(target, *arguments, **options):
            path = _where(one, target, options)
            if path.startswith(str(folder)) and name in path:
                calls.counts[one] += 1
                if one == call and at in (None, calls.counts[one]) and (times is None or calls.failed < times):
                    calls.failed += 1
                    raise OSError(code, os.strerror(code), path)
            return real(target, *arguments, **options)

        return run

    try:
        for one, real in saved.items():
            setattr(os, one, counted(one, real))
        io.open = counted("open", opened)
        yield calls
    finally:
        for one, real in saved.items():
            setattr(os, one, real)
        io.open = opened
