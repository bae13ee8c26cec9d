"""Seconds of the parts of a training: reading, forward, backward, step and the like."""

import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")


class Phases:
    """Adds up the seconds of each phase. On a CUDA device, which lags behind, those of a block are the device's own."""

    def __init__(self, device: torch.device) -> None:
        self._on_device = device.type == "cuda"
        self._seconds: dict[str, float] = {}
        self._marks: deque[tuple[str, torch.cuda.Event, torch.cuda.Event]] = deque()

    @contextmanager
    def of(self, phase: str) -> Iterator[None]:
        """Count the block as part of a phase."""
        if self._on_device:
            begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begun.record()
            yield
            ended.record()
            self._marks.append((phase, begun, ended))
            while self._marks and self._marks[0][2].query():  # so that a long epoch holds few of them
                self._add_mark()
            return
        started = time.perf_counter()
        yield
        self._add(phase, time.perf_counter() - started)

    def waiting(self, items: Iterable[T], phase: str = "read") -> Iterator[T]:
        """The items; the time that the caller waits for each of them counts as a phase."""
        iterator, end = iter(items), object()
        while True:
            started = time.perf_counter()
            item = next(iterator, end)
            self._add(phase, time.perf_counter() - started)
            if item is end:
                return
            yield item  # type: ignore[misc]

    def take(self) -> dict[str, float]:
        """The seconds of each phase since the last time."""
        while self._marks:
            self._add_mark()
        taken, self._seconds = self._seconds, {}
        return taken

    def _add_mark(self) -> None:
        """Add the oldest block that the device was given, once it is done."""
        phase, begun, ended = self._marks.popleft()
        ended.synchronize()
        self._add(phase, begun.elapsed_time(ended) / 1000)

    def _add(self, phase: str, seconds: float) -> None:
        self._seconds[phase] = self._seconds.get(phase, 0.0) + seconds


def added(one: dict[str, float], other: dict[str, float]) -> dict[str, float]:
    """The seconds of the phases of both."""
    return {name: one.get(name, 0.0) + other.get(name, 0.0) for name in {**one, **other}}
