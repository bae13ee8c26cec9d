"""Ask the system how much memory is free."""

import ctypes
import os
from pathlib import Path

MEMINFO = Path("/proc/meminfo")

_agreed: list[int] = []


def agree_on(size: int | None) -> None:
    """Let `free_memory` give this from now on, so that processes which work together decide alike; None: what it is."""
    _agreed[:] = [] if size is None else [size]


def free_memory() -> int:
    """Bytes that can be allocated now without swapping, including what the page cache would give back.

    Outside Linux, where this is not known, all of the machine's memory.
    """
    if _agreed:
        return _agreed[-1]
    if MEMINFO.exists():
        for line in MEMINFO.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def give_back_memory() -> None:
    """Give memory that was freed back to the system, where the C library can: glibc keeps what batches of ever other
    sizes leave between them, so that a process which computes for days would grow."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)
