"""Outputs gathered as they are computed, for the figures at the end: evaluation and prediction alike."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch

from recycle_cli.batches import Indices
from recycle_cli.models.outputs import Outputs
from recycle_cli.tasks.targets import Targets


class Scores(Protocol):
    """Keeps what a task needs of its outputs to score them."""

    def add(self, members: Indices, outputs: Outputs) -> None:
        """The outputs of some samples, whose places in the data are `members`."""

    def figures(self, targets: Targets) -> dict[str, float]:
        """Every metric; `targets` are those of the samples that were added, in the order of their places."""


class RowOutputs:
    """Keeps the outputs of all rows of the samples, without padding, for the scores of a task that needs them."""

    def __init__(self) -> None:
        self._outputs: dict[int, torch.Tensor] = {}

    def add(self, members: Indices, outputs: Outputs) -> None:
        """Keep the outputs of each sample."""
        self._outputs |= {member: own.clone() for member, own in zip(members.tolist(), outputs.each(), strict=True)}

    @property
    def each(self) -> list[torch.Tensor]:
        """The outputs (rows, width) of each sample, in the order of their places in the data."""
        return [self._outputs[member] for member in sorted(self._outputs)]


class DenseScores:
    """Keeps the outputs of all samples, one vector each. `compute` makes the figures of outputs (n, width) and targets
    (n, ...)."""

    def __init__(self, compute: Callable[[torch.Tensor, torch.Tensor], dict[str, float]]) -> None:
        self._compute = compute
        self._outputs: list[torch.Tensor] = []
        self._members: list[Indices] = []

    def add(self, members: Indices, outputs: Outputs) -> None:
        """Keep the outputs."""
        self._members.append(members)
        self._outputs.append(outputs.values)

    def figures(self, targets: Targets) -> dict[str, float]:
        """The task's figures."""
        order = torch.from_numpy(np.argsort(np.concatenate(self._members), kind="stable"))
        return self._compute(torch.cat(self._outputs)[order], targets.tensor())
