"""How much memory a piece of work took at most, above what was there before."""

import ctypes
import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

INTERVAL = 0.02
"""Seconds between two looks: short against a batch, long against the look itself (20 microseconds)."""

_STATM = Path("/proc/self/statm")


class PeakMemory:
    """Watches while it is entered; then `bytes` is the most that was taken at once, None where no one tells.

    On CUDA it is the device's memory; elsewhere the process's own resident pages, without the mapped files that the
    system may drop at any time.
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
    """Resident bytes of this process that belong to no file (Linux)."""
    _, resident, shared, *_ = _STATM.read_text(encoding="ascii").split()
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


def _return_free_memory() -> None:
    """Let glibc give back what earlier work freed, so that it does not hide what the next takes."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
