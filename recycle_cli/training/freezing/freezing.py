"""Layers freeze while the others train: when, and what becomes of them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from recycle_cli import runs
from recycle_cli.batches import RowSource
from recycle_cli.reports import say
from recycle_cli.runs import FreezeState, State
from recycle_cli.runtime.ranks import Ranks
from recycle_cli.settings import TrainingSettings
from recycle_cli.training.freezing.gradient_sums import PREFIX, GradientSums
from recycle_cli.training.freezing.head import FreezingHead
from recycle_cli.training.freezing.moving import MovingCut
from recycle_cli.training.freezing.rules import (
    Timetable,
    annealed,
    changes_of,
    freezes_after,
    interval_of,
    rule_of,
)
from recycle_cli.training.freezing.votes import Votes

LAYER = "layer"
"""The key of an optimizer's group that has the number of its layer, if layers anneal."""


class Freezing:
    """The freezing of one head's layers. Decisions are taken in `after_step` and `after_epoch` alone, from the norms of
    gradients or from the time, and carried out in `_freeze`; `moving` lets the cut follow."""

    def __init__(
        self, settings: TrainingSettings, head: FreezingHead, optimizer: torch.optim.Optimizer, moving: MovingCut
    ) -> None:
        self.settings, self.head, self.moving = settings, head, moving
        self.state = FreezeState()
        self._optimizer = optimizer
        self._steps = self._interval = 1
        self._told = False
        rule = rule_of(settings.freezing, len(head.layers))
        self._timetable = rule if isinstance(rule, Timetable) else None
        self._watcher = None if isinstance(rule, Timetable) else rule
        self._sums = None if self._watcher is None else GradientSums(head.layers, self._watcher.norm)
        self.votes: Votes | None = None
        self._last: list[int | None] = []
        if self._timetable is not None:
            self._last = [freezes_after(self._timetable, one, settings.epochs) for one in range(len(head.layers))]

    def begin(self, state: State, steps: int, sources: Sequence[RowSource]) -> None:
        """Start, or go on where a checkpoint was made, with so many optimizer steps an epoch. `sources`: of the
        training data and, if there is an evaluation, of its data."""
        self.state, self._steps = state.freezing, steps
        self._interval = interval_of(self.settings.freezing, self.settings.epochs, steps)
        self.head.freeze(self.state.frozen)
        self._drop(self.head.layers.names_in(self.state.frozen))
        if self._sums is not None:
            self._sums.load(runs.load_tensors(self.moving.folder, PREFIX))
        self.moving.begin(self.state, sources)

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """What a checkpoint keeps beside the head's own tensors."""
        return {} if self._sums is None else self._sums.tensors

    def rate_share(self, group: Mapping[str, Any], step: int) -> float:
        """The share of the learning rate that a group of weights has at a step, less than 1 while its layer anneals."""
        layer = group.get(LAYER)
        if layer is None:
            return 1.0
        if self._timetable is not None:
            last = self._last[layer]
            return 1.0 if last is None else annealed(step / (last * self._steps))
        return annealed((step - self.state.since) / self._interval) if layer in self.state.annealing else 1.0

    def watch(self, weight: float, *, scaled: bool) -> None:
        """Take notice of a step's gradients, which are of a sum of losses that weighs `weight`. `scaled`: float16
        needed a scale for them, and they may be infinite."""
        if self._sums is not None:
            self._sums.add(weight, scaled=scaled)
        if self.votes is not None:
            self.votes.end_step(weight)

    def let_vote(self, ranks: Ranks, classes: int) -> Votes:
        """Let several processes vote. `classes`: how many labels there are, if they weigh; else 0."""
        assert self._watcher is not None
        self.votes = Votes(ranks, self.head.layers, self._watcher, classes)
        return self.votes

    def after_step(self, state: State) -> dict[str, Any] | None:
        """Decide by the gradients if an interval ends with this step; returns the line for the log."""
        if self._sums is None or self._watcher is None or state.step % self._interval:
            return None
        before, norms = self.state.norms, self._sums.norms()
        self._sums.reset()
        self._freeze(self.state.annealing)
        self.state.norms, self.state.annealing, self.state.since = norms, [], state.step
        changes = None if before is None else changes_of(before, norms)
        chosen: list[int] = []
        figures: dict[str, Any] = {"norms": norms, "changes": changes}
        if self.votes is not None:
            chosen, ballots, weights = self.votes.chosen(frozenset(self.state.frozen))
            figures["votes"] = [
                {"weight": weight, "chosen": self._names(own)} for own, weight in zip(ballots, weights, strict=True)
            ]
        elif changes is not None:  # the first interval only records
            chosen = sorted(self._watcher.newly_frozen(changes, frozenset(self.state.frozen)))
        if self.settings.freezing.anneal:
            self.state.annealing = chosen
        else:
            self._freeze(chosen)
        return self._line(state, {**figures, "chosen": self._names(chosen)})

    def after_epoch(self, state: State) -> dict[str, Any] | None:
        """Decide at the end of an epoch if the rule goes by time; returns the line for the log."""
        if self._timetable is None:
            return None
        before = set(self.state.frozen)
        self._freeze(range(self._timetable.frozen(state.epoch, self.settings.epochs)))
        return self._line(state, {"chosen": self._names(sorted(set(self.state.frozen) - before))})

    def move(self, state: State) -> None:
        """Between two epochs: read from the new cut if its rows are complete, and decide whether the coming epoch
        writes those of another."""
        last = state.epochs[-1]
        last["read_cut"], last["frozen_cut"] = self.moving.here, self.state.began or self.moving.start
        self.moving.settle(state.epoch)
        self.moving.plan(self.settings.epochs - state.epoch - 1, last["phases"])
        self.state.began = self.head.begins

    def report(self) -> dict[str, Any]:
        """What has frozen by the end: the rule, the layers by name, the cut behind them, and the moves."""
        return {
            "rule": self.settings.freezing.rule,
            "layers": len(self.head.layers),
            "frozen": self._names(self.state.frozen),
            "cut": self.head.begins,
            "moves": self.state.moves,
        }

    def _freeze(self, layers: Iterable[int]) -> None:
        """Take layers out of training, out of the optimizer and out of the memory."""
        fresh = sorted(set(layers) - set(self.state.frozen))
        if fresh:
            self.state.frozen = sorted({*self.state.frozen, *fresh})
            self.head.freeze(self.state.frozen)
            self._drop(self.head.layers.names_in(fresh))

    def _drop(self, names: Iterable[str]) -> None:
        names = set(names)
        weights = [self.head.weights[name] for name in names]
        gone = {id(one) for one in weights}
        for group in self._optimizer.param_groups:
            group["params"] = [one for one in group["params"] if id(one) not in gone]
        for weight in weights:
            self._optimizer.state.pop(weight, None)
            weight.grad = None
        if self._sums is not None:
            self._sums.drop(names)
        if self.votes is not None:
            self.votes.drop(names)

    def _line(self, state: State, figures: Mapping[str, Any]) -> dict[str, Any]:
        """The log's line about a decision. Layers frozen behind one that trains bring no cut: it names them apart."""
        frozen = self.state.frozen
        leading = next((place for place, layer in enumerate(frozen) if place != layer), len(frozen))
        if len(frozen) > leading and not self._told:
            self._told = True
            say(
                f"{', '.join(self._names(frozen[leading:]))} is frozen behind a block that trains: no cut lies behind "
                "it, so that its own gradients are saved and nothing else"
            )
        line = {
            **figures,
            "frozen": self._names(frozen),
            "frozen_without_a_cut": self._names(frozen[leading:]),
            "cut": self.head.begins,
        }
        return {"step": state.step, "epoch": state.current_epoch, "freezing": line}

    def _names(self, layers: Iterable[int]) -> list[str]:
        names = list(self.head.layers.by_name)
        return [names[layer] for layer in layers]
