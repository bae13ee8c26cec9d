"""Parts of text files, by bytes: whole lines, found without reading what lies before them."""

import io
import os
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from recycle_cli.corpus.boundary import reading
from recycle_cli.disk import opened
from recycle_cli.settings import Shard


@dataclass(frozen=True)
class Part:
    """The lines of a file that begin at its bytes `start` to `stop`. `file`: what messages call it."""

    file: str
    path: Path
    start: int
    stop: int

    @property
    def name(self) -> str:
        """What messages call the part; its lines are counted from its own first one."""
        return f"{self.file} from byte {self.start}" if self.start else self.file

    def lines(self) -> Generator[str]:
        """The lines as UTF-8 with their ends, as `open_text` gives those of a whole file."""
        with reading(self.file), opened(self.path) as file:
            file.seek(self.start)
            encoding = "utf-8" if self.start else "utf-8-sig"
            raw = io.BufferedReader(_Until(file, self.stop - self.start))
            yield from io.TextIOWrapper(raw, encoding, "surrogateescape", newline="")


def parts_of(files: Sequence[tuple[str, Path]], shard: Shard) -> Generator[Part]:
    """What a shard has of the files, whose bytes are divided as if they were one file."""
    sizes = [_size(file, path) for file, path in files]
    for (file, path), wanted in zip(files, shard.places_in_each(sizes), strict=True):
        start, stop = (_line_start(file, path, place) for place in (wanted.start, wanted.stop))
        if start < stop:
            yield Part(file, path, start, stop)


def whole_files(files: Sequence[tuple[str, Path]], shard: Shard) -> Generator[tuple[str, Path]]:
    """The files whose middle byte lies in a shard's part of the bytes of all: each file is in exactly one shard."""
    sizes = [_size(file, path) for file, path in files]
    for named, size, wanted in zip(files, sizes, shard.places_in_each(sizes), strict=True):
        if size // 2 in wanted or (size == 0 and shard.index == 0):
            yield named


def _size(file: str, path: Path) -> int:
    with reading(file), opened(path) as content:
        return os.fstat(content.fileno()).st_size


def _line_start(file: str, path: Path, place: int) -> int:
    """The first byte from `place` on at which a line begins, or the file's end."""
    if place == 0:
        return 0
    with reading(file), opened(path) as content:
        content.seek(place - 1)
        content.readline()
        return content.tell()


class _Until(io.RawIOBase):
    """The next `left` bytes of a file."""

    def __init__(self, file: IO[bytes], left: int) -> None:
        self._file, self._left = file, left

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        content = self._file.read(min(len(buffer), self._left))
        buffer[: len(content)] = content
        self._left -= len(content)
        return len(content)
