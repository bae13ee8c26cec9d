"""Digests of files, and files that carry their own digest."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import xxhash

from recycle_cli.disk.reading import opened

OPEN_SEAL = "xxh3_128:" + "0" * 32
"""Placeholder in a file that is to carry its own digest; `seal` replaces the zeros."""

_SEAL = re.compile(rb"xxh3_128:([0-9a-f]{32})")
_CHUNK = 4 << 20
_HEAD = 16 << 20
"""Bytes in which the seal of a file is looked for."""


def digest(path: Path) -> dict[str, Any]:
    """The size of a file and its xxh3_128: {bytes, xxh3_128}. Raises OSError."""
    with opened(path) as file:
        return {"bytes": os.fstat(file.fileno()).st_size, "xxh3_128": _digest(file, None)}


def seal(path: Path) -> None:
    """Write a file's own digest into it, in place of OPEN_SEAL. Raises OSError."""
    with opened(path) as file:
        place = _place(file)
        assert place is not None, "there is no seal in it"
        found = _digest(file, place)
    with path.open("r+b", buffering=0) as out:
        out.seek(place)
        out.write(found.encode())


def is_sealed(path: Path) -> bool:
    """Whether a file carries its own digest, and no bit of it has changed. Raises OSError if it cannot be read."""
    with opened(path) as file:
        place = _place(file)
        if place is None:
            return False
        found = _digest(file, place)
        file.seek(place)
        return file.read(len(found)) == found.encode()


def _place(file: IO[bytes]) -> int | None:
    """Where the 32 digits of a file's own digest begin."""
    file.seek(0)
    found = _SEAL.search(file.read(_HEAD))
    return None if found is None else found.start(1)


def _digest(file: IO[bytes], place: int | None) -> str:
    """The digest of a file. Its own digest at `place`, if it carries one, counts as zeros."""
    whole = xxhash.xxh3_128()
    for start, chunk in _chunks(file):
        if place is not None and start <= place + 32 and place < start + len(chunk):
            first, last = max(place, start) - start, min(place + 32, start + len(chunk)) - start
            chunk = chunk[:first] + b"0" * (last - first) + chunk[last:]
        whole.update(chunk)
    return whole.hexdigest()


def _chunks(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    file.seek(0)
    start = 0
    while chunk := file.read(_CHUNK):
        yield start, chunk
        start += len(chunk)
