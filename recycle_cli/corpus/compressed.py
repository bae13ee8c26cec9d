"""Text files, plain or compressed. A compressed file that ends early, or goes on as something else, is an error."""

import bz2
import gzip
import io
import lzma
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, TextIO, cast

from recycle_cli.disk import check_regular


class _Streams(io.RawIOBase):
    """The bytes of compressed streams, one after another. Behind the first stream the standard library drops whatever
    is no stream; here only zeros are dropped, and anything else is an error."""

    def __init__(self, file: IO[bytes], decompressor: Callable[[], Any]) -> None:
        self._file, self._new = file, decompressor
        self._current: Any = decompressor()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            if self._current.eof:
                rest = self._current.unused_data.lstrip(b"\0") or self._past_zeros()
                if not rest:
                    return 0
                self._current = self._new()
            elif self._current.needs_input:
                rest = self._file.read(io.DEFAULT_BUFFER_SIZE)
                if not rest:
                    raise EOFError("it ends early: was it downloaded whole?")
            else:
                rest = b""
            content = self._current.decompress(rest, len(buffer))
            if content:
                buffer[: len(content)] = content
                return len(content)

    def _past_zeros(self) -> bytes:
        while content := self._file.read(io.DEFAULT_BUFFER_SIZE):
            if content := content.lstrip(b"\0"):
                return content
        return b""

    def close(self) -> None:
        self._file.close()
        super().close()


def _zstd(path: Path) -> IO[bytes]:
    # By pyarrow, which is installed anyway: it raises if a frame is cut off, and the package zstandard does not.
    from pyarrow import input_stream

    return cast(IO[bytes], input_stream(str(path), compression="zstd"))


_OPENERS: Mapping[str, Callable[[Path], Any]] = {
    ".gz": gzip.open,
    ".bz2": lambda path: _Streams(path.open("rb"), bz2.BZ2Decompressor),
    ".xz": lambda path: _Streams(path.open("rb"), lzma.LZMADecompressor),
    ".zst": _zstd,
}

COMPRESSIONS = tuple(_OPENERS)
"""Endings of compressed files."""


def open_text(file: str) -> TextIO:
    """A file as UTF-8 text, decompressed if its name says so. Reading it may raise whatever the decompressor does."""
    # Line ends stay as they are: they belong to the content that the key covers.
    how: Mapping[str, Any] = {"encoding": "utf-8-sig", "errors": "surrogateescape", "newline": ""}
    path = Path(file)
    check_regular(path)
    opener = _OPENERS.get(path.suffix.lower())
    if opener is None:
        return path.open(**how)
    if not path.stat().st_size:
        raise EOFError("it is empty, where a compressed file has a head at least: was it downloaded whole?")
    return io.TextIOWrapper(io.BufferedReader(opener(path)), **how)
