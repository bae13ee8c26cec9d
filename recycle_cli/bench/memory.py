"""Measure the peak memory of a piece of work, above what was allocated before."""

import ctypes
import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

INTERVAL = 0.02
"""Seconds between two samples: short beside a batch, long beside taking a sample (20 microseconds)."""

_STATM = Path("/proc/self/statm")


class PeakMemory:
    """A context manager that sets `bytes` to the peak memory of its block, or None if the system does not report it.

    On CUDA this is the device's memory. Elsewhere it is the process's own resident pages, without mapped files, whose
    pages the system may drop at any time.
    """

    def __init__(self, device: torch.device) -> None:
        self.bytes: int | None = None
        self._device = device
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._before = self._most = 0

    def __enter__(self) -> Self:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            self._before = torch.cuda.memory_allocated(self._device)
        elif _STATM.exists():
            _return_free_memory()
            self._before = self._most = own_memory()
            self._thread = threading.Thread(target=self._watch, name="recycle-memory", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._device.type == "cuda":
            self.bytes = torch.cuda.max_memory_allocated(self._device) - self._before
        elif self._thread is not None:
            self._stop.set()
            self._thread.join()
            self.bytes = max(self._most, own_memory()) - self._before

    def _watch(self) -> None:
        while not self._stop.wait(INTERVAL):
            self._most = max(self._most, own_memory())


def own_memory() -> int:
    """Resident bytes of this process that are not mapped from a file (Linux)."""
    _, resident, shared, *_ = _STATM.read_text(encoding="ascii").split()
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


def _return_free_memory() -> None:
    """Make glibc return freed memory to the system; else earlier work would hide what the next takes."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
