"""Outputs of labelled samples, gathered as predictions are made, for the metrics at the end."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from recycle_cli.keys import Label
from recycle_cli.tasks.contract import Task

MOST_TO_COMPARE = 100_000
"""Labelled samples beyond which none are compared with all the others: that takes the square of their number."""


@dataclass
class Scores:
    """What was predicted for labelled samples; without labels nothing grows with the corpus. `names`: the classes."""

    task: Task
    names: Sequence[str]
    outputs: list[torch.Tensor] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)
    too_many: bool = False

    def add(self, outputs: torch.Tensor, labels: Sequence[Label | None]) -> None:
        """Outputs (n, width), and the label of each sample that has one."""
        known = [place for place, label in enumerate(labels) if label is not None]
        if not known or self.too_many:
            return
        self.outputs.append(outputs[known])
        self.labels += [label for label in labels if label is not None]
        if self.task.grouped and len(self.labels) > MOST_TO_COMPARE:
            self.too_many, self.outputs, self.labels = True, [], []

    def figures(self) -> dict[str, float] | None:
        """The task's metrics; None where `why_none` says why."""
        if self.why_none(None) is not None:
            return None
        targets = self.task.targets(self.labels, self.names if self.task.closed else self._present)
        return self.task.figures(torch.cat(self.outputs), torch.from_numpy(targets))

    def why_none(self, column: str | None) -> str | None:
        """Why there are no metrics; None where there are. `column`: where the labels would be."""
        if self.too_many:
            return f"more than {MOST_TO_COMPARE:,} labelled samples to compare with one another"
        if not self.labels and column is None:
            return "no column of labels was found; --label-column names one"
        if not self.labels:
            return f"no record has a label in the column {column!r}"
        if self.task.grouped and len({*self.labels}) == len(self.labels):
            return "no two labelled samples share a group"
        unknown = [name for name in self._present if name not in self.names]
        if self.task.closed and unknown:
            return f"the label {unknown[0]!r} is not one of the run's classes ({', '.join(self.names)})"
        return None

    @property
    def _present(self) -> list[str]:
        return sorted({name for label in {*self.labels} for name in self.task.classes_in(label)})
