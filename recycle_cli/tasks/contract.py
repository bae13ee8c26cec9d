"""What a task must say, whatever it is: the training loop, the data and the predictions ask it nothing else."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch

from recycle_cli.errors import DataError, UsageError
from recycle_cli.keys import Label
from recycle_cli.models import TaskLayer

Targets = npt.NDArray[Any]
"""A row a sample: a class index or group number int64 (n,), or float32 (n, C) with a one for each of its classes."""

Kind = Literal["text", "number", "texts", "numbers"]

Columns = Mapping[str, Kind]
"""The columns of a prediction beside the record's id, and what each holds."""

LOSS = "loss"


class Task(Protocol):
    """What a head is trained for. B samples a batch, n in all; outputs (n, width) are the model's, float32."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the figures; the first chooses the best weights unless the user names another."""

    @property
    def grouped(self) -> bool:
        """Whether batches hold several samples of a group, whose distances the loss compares."""

    @property
    def closed(self) -> bool:
        """Whether the classes are those of the training data, also where it is evaluated."""

    @property
    def mixes(self) -> bool:
        """Whether a mixture of two samples can be scored by the loss against each of them."""

    def layer(self, names: Sequence[str]) -> TaskLayer:
        """The layer that the model is to end with."""

    def names_of(self, found: Iterable[str]) -> list[str]:
        """The classes, found in the labels of the training data, in their order. Raises DataError for too few."""

    def classes_in(self, label: Label) -> tuple[str, ...]:
        """The names of classes in a label. Raises DataError for a label of another form."""

    def targets(self, labels: Sequence[Label], names: Sequence[str]) -> Targets:
        """A target for each label; every class in it is one of `names`."""

    def class_weights(self, targets: Targets, classes: int) -> torch.Tensor:
        """Weights (C,) by which rare classes count as much as frequent ones. Raises UsageError where there are none."""

    def sample_weights(self, targets: Targets, weights: torch.Tensor | None) -> npt.NDArray[np.float64]:
        """What each sample (B,) of a batch counts for in the mean that `loss` takes; 0 for one that has no part."""

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        """The mean loss of a batch, a scalar."""

    def figures(self, outputs: torch.Tensor, targets: torch.Tensor) -> dict[str, float]:
        """Every metric of n samples."""

    def columns(self, names: Sequence[str]) -> Columns:
        """The columns of the predictions."""

    def predictions(self, outputs: torch.Tensor, names: Sequence[str]) -> list[dict[str, Any]]:
        """A prediction a sample: a value for each of the columns."""


def ordered(names: Iterable[str], what: str = "classes") -> list[str]:
    """Names without repeats, numbers first and in numeric order. Raises DataError for fewer than two of `what`."""
    found = sorted(set(names), key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0, name))
    if len(found) < 2:
        only = f"only the label {found[0]!r}" if found else "no labelled record"
        raise DataError(f"the data hold {only}, expected at least two {what}; check the label column")
    return found


def only_name(label: Label, what: str = "classes", remedy: str = "") -> tuple[str]:
    """The one name in a label. Raises DataError for a label of several of `what`."""
    if isinstance(label, tuple):
        raise DataError(f"the label {list(label)} names several {what}, expected one{remedy}")
    return (label,)


def places(found: Iterable[str], names: Sequence[str]) -> Targets:
    """The place of each name among `names`, int64 (n,)."""
    numbers = {name: place for place, name in enumerate(names)}
    return np.array([numbers[name] for name in found], dtype=np.int64)


def chosen_metric(task: Task, metric: str | None) -> str:
    """The metric that chooses the best weights. Raises UsageError for one that the task does not have."""
    if metric is not None and metric not in task.metrics:
        raise UsageError(f"--metric {metric} is not known here; take one of {', '.join(task.metrics)}")
    return metric or task.metrics[0]


def is_better(metric: str, new: Mapping[str, float], old: Mapping[str, float] | None) -> bool:
    """Whether `new` beats `old` by this metric; a loss is better when smaller."""
    if old is None:
        return True
    return new[metric] < old[metric] if metric == LOSS else new[metric] > old[metric]
