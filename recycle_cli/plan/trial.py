"""Run the sample through the code of the commands: fill, read cold, and train a few batches, in turns."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import Any

from recycle_cli.batches import RowSource, StoredRows, shuffled
from recycle_cli.bench.epoch import epoch_seconds, slice_for, training
from recycle_cli.bench.subject import WHOLE, Subject, discard
from recycle_cli.bench.timing import WARM_UP, Clock, turns_on
from recycle_cli.corpus import Views
from recycle_cli.models import SplitModel
from recycle_cli.plan.coldread import cold_bytes_per_second
from recycle_cli.plan.cost import Line, fit, padded
from recycle_cli.reports import Bar
from recycle_cli.store import Store
from recycle_cli.trunk import by_token_budget

LEAST_SECONDS = 1.0
"""Seconds that a way to train is tried in each repetition if its steps are short and the sample has enough batches.
Eight steps of only a task layer take no longer than one hiccup of the machine."""

Steps = list[tuple[int, float]]
"""Padded tokens and seconds of each training step."""


@dataclass(frozen=True)
class Trial:
    """The measurements, by cut (in blocks) or by way to train: `full`, `store 3`, `frozen 3`."""

    blocks: list[str]
    row_shapes: Mapping[str, tuple[int, ...]]
    fill_seconds_a_token: Mapping[str, float]
    cold_rates: Mapping[str, float | None]
    steps: Mapping[str, Line]


@dataclass
class Contestant:
    """A copy of the model split at one cut, with the store that its trunk filled; the whole model has no store."""

    halves: SplitModel
    cut: str
    store: Store | None = None
    fills: list[float] = field(default_factory=list)
    cold_rate: float | None = None

    @property
    def filled(self) -> Store:
        """The store, which exists from the warm-up on."""
        assert self.store is not None, "filling comes first"
        return self.store


def try_out(subject: Subject, progress: Bar, views: Views = ()) -> Trial:
    """Fill a store at each cut and train with and without it, and train the whole model, all in turns.

    `views` make the augmented views of an image: with a store they are stored beside it, without one they are drawn in
    the loop.
    """
    full = Contestant(subject.whole(), WHOLE)
    cuts = [_contestant(subject, cut) for cut in subject.settings.cuts]
    ways = {"full": (full, False, "training the whole model")}
    for one in cuts:
        ways[f"store {one.cut}"] = one, True, f"training from the store at {one.cut}"
        ways[f"frozen {one.cut}"] = one, False, f"training with the trunk in place, cut at {one.cut}"
    progress.update(total=(subject.settings.repetitions - WARM_UP) * (len(cuts) + len(ways)))
    note = turns_on(progress)
    steps: dict[str, Steps] = {}
    batches: dict[str, int] = {}
    for repetition in range(WARM_UP, subject.settings.repetitions):
        for one in cuts:
            note(f"filling at {one.cut}")
            _fill(subject, one, views, repetition)
        for way, (one, stored, said) in ways.items():
            note(said)
            found = _train(subject, one, stored, views, repetition, batches.get(way))
            if repetition == WARM_UP:
                shortest = min(seconds for _, seconds in found)
                batches[way] = max(subject.settings.batches, math.ceil(LEAST_SECONDS / shortest))
            else:
                steps.setdefault(way, []).extend(found)
    tokens = sum(padded(subject.lengths, list(by_token_budget(subject.lengths, subject.batch_tokens))))
    return Trial(
        blocks=[one.cut for one in cuts],
        row_shapes={one.cut: one.filled.row_shape(one.cut) for one in cuts},
        fill_seconds_a_token={one.cut: median(one.fills) / (tokens * (1 + len(views))) for one in cuts},
        cold_rates={one.cut: one.cold_rate for one in cuts},
        steps={way: fit(*zip(*found, strict=True)) for way, found in steps.items()},
    )


def _contestant(subject: Subject, cut: str) -> Contestant:
    halves = subject.split((cut,))
    halves.freeze(halves.cuts[0])
    return Contestant(halves, halves.cuts[0])


def _fill(subject: Subject, one: Contestant, views: Views, repetition: int) -> None:
    """Fill a store. In the warm-up keep it, and read it cold before anything else brings it into memory."""
    folder, clock = subject.folder(), Clock(subject.device)
    with clock.running():
        store, _ = subject.filled(folder / "acts.zarr", subject.records().samples(views), one.halves)
    if repetition != WARM_UP:
        one.fills.append(clock.seconds)
        discard(folder)
        return
    one.store = store
    positions = store.lookup(subject.data.keys, subject.data.digests)
    one.cold_rate = cold_bytes_per_second(store, one.cut, positions, subject.settings.batch_size)


def _train(
    subject: Subject, one: Contestant, stored: bool, views: Views, repetition: int, batches: int | None
) -> Steps:
    """Train part of an epoch and return its steps, without the first if there are others.

    The first step starts threads and makes the optimizer's moments, once an epoch and not once in four steps.
    """
    members, settings = slice_for(subject, repetition, batches), training(subject)
    source: RowSource = subject.inputs(one.halves, members, views)
    if stored:
        positions = one.filled.lookup(subject.data.keys[members], subject.data.digests[members])
        source = StoredRows.of(one.filled, one.cut, positions)
    ends: list[float] = []

    def note_steps(record: Mapping[str, Any]) -> None:
        if "loss" in record:  # the end of an epoch leaves a record as well
            ends.append(time.perf_counter())

    total = epoch_seconds(subject, one.halves, one.cut, source, members, log=note_steps)
    tokens = padded(source.lengths, shuffled(source.lengths, settings.batch_size, settings.seed, 0))
    between = [after - before for before, after in pairwise(ends)]
    return list(zip(tokens, [total - sum(between), *between], strict=True))[1 if between else 0 :]
