"""How much memory is left."""

import os
from pathlib import Path

MEMINFO = Path("/proc/meminfo")


def free_memory() -> int:
    """Bytes that can be taken now without swapping, what the page cache would give back included.

    Where the system does not tell (outside Linux), all of the machine's memory.
    """
    if MEMINFO.exists():
        for line in MEMINFO.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
