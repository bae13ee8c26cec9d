"""Repetitions that take turns, so that what slows the machine down slows all variants down alike."""

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from recycle_cli.bench.memory import PeakMemory

WARM_UP = -1
"""The repetition before the first: a little of the same work, not counted."""


@dataclass(frozen=True)
class Run:
    """One repetition of one variant: seconds, and the samples, steps and bytes that they took."""

    seconds: float
    samples: int
    steps: int | None = None
    bytes: int | None = None
    peak_memory: int | None = None

    @property
    def seconds_a_sample(self) -> float:
        """What two variants are compared by."""
        return self.seconds / self.samples


@dataclass(frozen=True)
class Unavailable:
    """A variant that cannot run here, and why."""

    reason: str


Runner = Callable[[int], Run]
"""Takes the number of the repetition (or WARM_UP), does its share of the work and times it."""


@dataclass
class Clock:
    """Seconds of a block of work on a device, which may lag behind the program."""

    device: torch.device
    seconds: float = field(default=0.0, init=False)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Add the block's time, from an idle device to an idle device."""
        synchronize(self.device)
        started = time.perf_counter()
        yield
        synchronize(self.device)
        self.seconds += time.perf_counter() - started


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def interleaved(
    runners: Mapping[str, Runner | Unavailable], repetitions: int, device: torch.device, note: Callable[[str], None]
) -> dict[str, list[Run] | Unavailable]:
    """Warm every variant up once, then let them take turns. `note` hears the name of each before it runs.

    Each repetition has an order of its own, drawn at random and the same at every run (randomized blocks): what a
    variant leaves behind in memory and caches would else serve always the same one.
    """
    runs: dict[str, list[Run] | Unavailable] = {
        name: runner if isinstance(runner, Unavailable) else [] for name, runner in runners.items()
    }
    names = list(runners)
    for repetition in range(WARM_UP, repetitions):
        order = np.random.default_rng(repetition - WARM_UP).permutation(len(names))
        for name in (names[place] for place in order.tolist()):
            runner, done = runners[name], runs[name]
            if isinstance(runner, Unavailable) or isinstance(done, Unavailable):
                continue
            note(name)
            gc.collect()
            with PeakMemory(device) as peak:
                run = runner(repetition)
            if repetition != WARM_UP:
                done.append(replace(run, peak_memory=peak.bytes))
    return runs
