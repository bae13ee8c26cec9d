"""Limit the bytes of a store, by checking before each write whether the rows still fit."""

import os
from collections.abc import Callable
from pathlib import Path

from recycle_cli.errors import BarError

_MARGIN = 64 << 10
"""Bytes kept free for a segment's metadata. Shard indexes and checksums take 1/64 of the rows on top of it."""

_SAMPLE = 16 + 16 + 8
"""Bytes of a sample's key, digest and offset; they can outweigh the rows of a short sample."""

_INDEX = 8 + 8
"""Bytes of a sample's entry in the index, which the next opening of the store may write."""


class DiskBudget:
    """At most `limit` bytes in a store. Bytes of other writers count as of the last `measure`."""

    def __init__(self, count: Callable[[], int], where: str, limit: int) -> None:
        self._count, self._where = count, where
        self.limit = limit
        self.used = 0
        self.measure()

    def measure(self) -> None:
        """Count the bytes that the store takes now."""
        self.used = self._count()

    def holds(self, rows: int, samples: int, sealed: int) -> bool:
        """Whether `rows` bytes of `samples` samples fit within the limit, with their keys, index and metadata.

        `sealed` is the number of samples that `used` already counts, but for their entries in the index.
        """
        coming = rows + rows // 64 + samples * _SAMPLE + (samples + sealed) * _INDEX
        return self.used + coming + _MARGIN <= self.limit

    def passed(self) -> BarError:
        """The error to raise when rows no longer fit."""
        return BarError(
            f"{self._where}: the next rows would exceed --max-disk {self.limit} ({self.used} bytes are used); what was "
            "sealed before is usable; raise the limit, or use a smaller --dtype or --codec auto"
        )


def bytes_below(folder: Path) -> int:
    """Sum the sizes of all files below a folder. Links are not followed; files that vanish meanwhile count nothing."""
    if folder.is_symlink():
        return 0
    total = 0
    for parent, _, files in os.walk(folder):
        for name in files:
            try:
                total += (Path(parent) / name).lstat().st_size
            except FileNotFoundError:
                continue
    return total
