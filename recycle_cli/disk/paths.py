"""Paths as users give them: `~` is expanded, and what is written is kept apart from what is read."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from recycle_cli.errors import UsageError

STDOUT = "-"
"""Names stdout where a file is expected."""


@dataclass(frozen=True)
class Read:
    """A file or folder that a command reads. `whole`: a folder that is read with everything below it, so that nothing
    may be written there."""

    path: str
    whole: bool = False


def expanded(path: str) -> str:
    """A path with `~` and `~user` at its beginning replaced by the home folder, if there is one."""
    return os.path.expanduser(path)  # noqa: PTH111 - Path.expanduser raises for a user who is not known


def files_of(folder: str) -> list[str]:
    """The files directly in a folder; none if there is no such folder."""
    try:
        with os.scandir(expanded(folder)) as entries:
            return [entry.path for entry in entries if not entry.is_dir()]
    except OSError:
        return []


def keep_apart(read: Iterable[Read], written: Mapping[str, str]) -> None:
    """Raise UsageError if a path that is written is also read, lies in a folder that is read whole, or is written
    twice. Links are followed; two names of one file are the same.

    written  the paths by the options that name them
    """
    places = {option: expanded(path) for option, path in written.items() if "://" not in path}
    sources = [Read(expanded(one.path), one.whole) for one in read if "://" not in one.path]
    options = list(places)
    for number, option in enumerate(options):
        path = places[option]
        for other in options[:number]:
            if _same(path, places[other]):
                raise UsageError(f"{option} {path} is {other} too; name another file")
        for source in sources:
            if _same(path, source.path):
                raise UsageError(f"{option} {path} is {source.path}, which is read; choose another place")
            if source.whole and _inside(path, source.path):
                raise UsageError(f"{option} {path} lies in {source.path}, all of which is read; choose another place")


def _same(one: str, other: str) -> bool:
    """Whether two paths lead to one file: by their real paths, or by device and inode."""
    if os.path.realpath(one) == os.path.realpath(other):
        return True
    try:
        return os.path.samefile(one, other)  # noqa: PTH121
    except (OSError, ValueError):
        return False


def _inside(path: str, folder: str) -> bool:
    """Whether a path, there or not, lies below a folder: the folder is one of those above it, by any name."""
    real = Path(os.path.realpath(path))
    return any(_same(str(above), folder) for above in real.parents)
