"""A limit on the bytes of a store, kept by asking before writing."""

import os
from collections.abc import Callable
from pathlib import Path

from recycle_cli.errors import BarError

_MARGIN = 64 << 10
"""Room for a segment's metadata, beside one part in 64 for keys, digests, offsets and shard indexes."""


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

    def holds(self, coming: int) -> bool:
        """Whether this many more bytes of rows, with all that belongs to them, stay within the limit."""
        return self.used + coming + coming // 64 + _MARGIN <= self.limit

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
