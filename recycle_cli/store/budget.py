"""A limit on the bytes of a store, kept by asking before writing."""

import os
from collections.abc import Callable
from pathlib import Path

from recycle_cli.errors import BarError

_MARGIN = 64 << 10
"""Room for a segment's metadata, beside one part in 64 of the rows for shard indexes and checksums."""

_SAMPLE = 16 + 16 + 8
"""A sample's key, digest and offset: more than its row, where it has one small row."""

_INDEX = 8 + 8
"""A sample's entry in the index, which the next opening may write."""


class DiskBudget:
    """At most `limit` bytes in a store, those of other writers included as of the last `measure`."""

    def __init__(self, count: Callable[[], int], where: str, limit: int) -> None:
        self._count, self._where = count, where
        self.limit = limit
        self.used = 0
        self.measure()

    def measure(self) -> None:
        """Count what is there now."""
        self.used = self._count()

    def holds(self, rows: int, samples: int, sealed: int) -> bool:
        """Whether bytes of rows of so many samples, with all that belongs to them, stay within the limit.

        `sealed` are the samples that are counted in `used` already, but for their part of the index.
        """
        coming = rows + rows // 64 + samples * _SAMPLE + (samples + sealed) * _INDEX
        return self.used + coming + _MARGIN <= self.limit

    def passed(self) -> BarError:
        return BarError(
            f"{self._where}: --max-disk {self.limit} would be passed, {self.used} bytes are used: everything before is "
            f"sealed and usable; raise the limit, or use a smaller --dtype or --codec auto"
        )


def bytes_below(folder: Path) -> int:
    """Bytes of all files below a folder, links not followed; what goes while we look is not counted."""
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
