"""Time repetitions of variants that take turns, so that other load on the machine slows all of them alike."""

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from recycle_cli.bench.memory import PeakMemory
from recycle_cli.reports import Bar

WARM_UP = -1
"""The number of the warm-up before the first repetition: a little of the same work, which does not count."""


@dataclass(frozen=True)
class Run:
    """One repetition of one variant: its seconds, and the samples, steps and bytes done in them. `figures`: others, by
    the names of their measures."""

    seconds: float
    samples: int
    steps: int | None = None
    bytes: int | None = None
    peak_memory: int | None = None
    figures: Mapping[str, float] = field(default_factory=dict)

    @property
    def seconds_a_sample(self) -> float:
        """Seconds a sample, by which two variants are compared."""
        return self.seconds / self.samples


@dataclass(frozen=True)
class Unavailable:
    """A variant that cannot run here, with the reason."""

    reason: str


Runner = Callable[[int], Run]
"""A function that takes the number of the repetition (or WARM_UP), does the work of it and times that."""


def turns_on(progress: Bar) -> Callable[[str], None]:
    """Names each turn on a bar as it begins; a turn is counted when the next one begins."""
    begun = False

    def begin(name: str) -> None:
        nonlocal begun
        progress.update(1 if begun else 0, note=name)
        begun = True

    return begin


@dataclass
class Clock:
    """Measures the seconds of work on a device, which may lag behind the program."""

    device: torch.device
    seconds: float = field(default=0.0, init=False)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Add the time of the block, waiting for the device before and after it."""
        synchronize(self.device)
        started = time.perf_counter()
        yield
        synchronize(self.device)
        self.seconds += time.perf_counter() - started


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished the work queued so far."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def interleaved(
    runners: Mapping[str, Runner | Unavailable], repetitions: int, device: torch.device, note: Callable[[str], None]
) -> dict[str, list[Run] | Unavailable]:
    """Warm up every variant, then run all repetitions in turns. `note` is called with a variant's name before it runs.

    Each repetition has a random order of its own, the same in every bench (randomized blocks). With a fixed order, what
    a variant leaves in memory and caches would always help the same one.
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
