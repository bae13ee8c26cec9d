"""Outputs of labelled samples, gathered as predictions are made, for the metrics at the end."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from recycle_cli.reports import say
from recycle_cli.tasks.contract import Label, Task

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
        """The task's metrics; None where no sample was labelled, or one with a class that the RUN does not know."""
        if self.too_many:
            say(f"no metrics: more than {MOST_TO_COMPARE:,} labelled samples to compare with one another")
        if not self.labels:
            return None
        present = sorted({name for label in {*self.labels} for name in self.task.classes_in(label)})
        unknown = [name for name in present if name not in self.names]
        if self.task.closed and unknown:
            say(f"no metrics: the label {unknown[0]!r} is not one of the run's classes ({', '.join(self.names)})")
            return None
        targets = self.task.targets(self.labels, self.names if self.task.closed else present)
        return self.task.figures(torch.cat(self.outputs), torch.from_numpy(targets))
