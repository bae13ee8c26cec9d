"""When which layers freeze: pure functions of the time that has passed, or of the norms of gradients.

Layers are numbered in the order of computation, from 0. What comes after the last block, the task's layer with it,
never freezes and is no layer here; where a rule counts it, that is said.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from statistics import median
from typing import Literal

from recycle_cli.settings import FreezeSettings

Norm = Literal["l1", "l2"]
Frozen = frozenset[int]

INTERVALS = 20
"""Decisions of autofreeze in a training (AutoFreeze's `num_intervals`)."""


@dataclass(frozen=True)
class Linear:
    """Composer's Layer Freezing (mosaicml/composer, algorithms/layer_freezing).

    units  the layers with the last, which never freezes, among them
    start  the share of the training after which freezing begins
    level  the share of the layers that are frozen at the end
    """

    units: int
    start: float
    level: float

    def frozen(self, epoch: int, epochs: int) -> int:
        """int(p (N - 1)), in the floating-point arithmetic of Composer, which may fall one short of a whole number."""
        elapsed = epoch / epochs
        if elapsed <= self.start:
            return 0
        return int(self.level * ((elapsed - self.start) / (1.0 - self.start)) * (self.units - 1))


@dataclass(frozen=True)
class Bound:
    """PipeTransformer's bound: L_e = L_{e-1} + a (L - L_{e-1}), rounded up as its released code does.

    blocks  L
    share   a
    """

    blocks: int
    share: float

    def frozen(self, epoch: int, epochs: int) -> int:
        """In closed form, L - L (1 - a)^e; exact for shares such as 1/3."""
        left = (1 - Fraction(self.share).limit_denominator(1000)) ** epoch
        return math.ceil(self.blocks * (1 - left))


@dataclass(frozen=True)
class LeastChange:
    """The gradient-norm rule of the study on data-parallel fine-tuning, in one of its three readings.

    argmin    the layer that changes least among those that train, wherever it is
    frontier  that layer, but only if it is the first that trains
    up-to     all layers up to it
    """

    reading: Literal["argmin", "frontier", "up-to"]
    norm: Norm = "l2"

    def newly_frozen(self, changes: Sequence[float], frozen: Frozen) -> Frozen:
        """The layers to freeze; none if all are frozen."""
        active = [layer for layer in range(len(changes)) if layer not in frozen]
        if not active:
            return frozenset()
        least = min(active, key=lambda layer: changes[layer])
        if self.reading == "argmin":
            return frozenset({least})
        if self.reading == "frontier":
            return frozenset({least} if least == active[0] else ())
        return frozenset(layer for layer in active if layer <= least)


@dataclass(frozen=True)
class AutoFreeze:
    """AutoFreeze (Liu et al., 2021): training goes on from the first layer whose change is the median or more."""

    norm: Norm = "l1"

    def newly_frozen(self, changes: Sequence[float], frozen: Frozen) -> Frozen:
        """The layers before the new first one; the median is of those that train."""
        start = len(frozen)
        if start >= len(changes):
            return frozenset()
        middle = median(changes[start:])
        first = next(layer for layer in range(start, len(changes)) if changes[layer] >= middle)
        return frozenset(range(start, first))


Timetable = Linear | Bound
"""Rules that go by time alone: how many layers from the first on are frozen once so many epochs are finished."""

Watcher = LeastChange | AutoFreeze
"""Rules that go by the gradients: by how much their norms have changed from one interval to the next."""


def changes_of(before: Sequence[float], now: Sequence[float]) -> list[float]:
    """|before - now| / before of each layer's norm; infinite if it was 0 and is not any more."""
    return [
        abs(then - this) / then if then else (math.inf if this else 0.0) for then, this in zip(before, now, strict=True)
    ]


def rule_of(settings: FreezeSettings, layers: int) -> Timetable | Watcher:
    """The rule that is asked for. `layers`: those that can freeze, if blocks are counted; else all, the last too."""
    if settings.rule == "linear":
        return Linear(layers + 1 if settings.unit == "block" else layers, settings.start, settings.level)
    if settings.rule == "bound":
        return Bound(layers, settings.share)
    return AutoFreeze() if settings.rule == "autofreeze" else LeastChange(settings.reading)


def interval_of(settings: FreezeSettings, epochs: int, steps_an_epoch: int) -> int:
    """Steps between two decisions of a rule that watches gradients."""
    if settings.interval is not None:
        return settings.interval
    return max(1, epochs * steps_an_epoch // INTERVALS) if settings.rule == "autofreeze" else steps_an_epoch


def autofreeze_rate(step: int, steps: int) -> float:
    """AutoFreeze's share of the learning rate: 1 to 30% of the steps, 0.7 to 60%, then 0.4."""
    if step < int(0.3 * steps):
        return 1.0
    return 0.7 if step < int(0.6 * steps) else 0.4


def annealed(done: float) -> float:
    """FreezeOut's share of the learning rate of a layer of whose time `done` has passed: a cosine from 1 to 0."""
    return (1 + math.cos(math.pi * min(max(done, 0.0), 1.0))) / 2


def freezes_after(rule: Timetable, layer: int, epochs: int) -> int | None:
    """The epoch, counted from 1, at whose end a layer freezes; None if it never does."""
    return next((epoch for epoch in range(1, epochs + 1) if rule.frozen(epoch, epochs) > layer), None)
