"""Multi-label classification: any number of classes a sample, each decided for itself."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows it by

from recycle_cli.keys import Label
from recycle_cli.models import TaskLayer
from recycle_cli.tasks.contract import LOSS, Columns, Targets, ordered


@dataclass(frozen=True)
class MultiLabel:
    """Classes by a sigmoid each; targets (n, C) float32 hold a one for each class of a sample, perhaps for none.

    `threshold`: the score from which on a class counts as predicted.
    """

    threshold: float = 0.5

    metrics = ("macro_f1", "micro_f1", "mean_average_precision", LOSS)
    grouped = False
    closed = True
    mixes = True

    def layer(self, names: Sequence[str]) -> TaskLayer:
        """A score for each class."""
        return TaskLayer("multi_label_classification", tuple(names))

    def names_of(self, found: Iterable[str]) -> list[str]:
        """At least two."""
        return ordered(found)

    def classes_in(self, label: Label) -> tuple[str, ...]:
        """The classes."""
        return label if isinstance(label, tuple) else (label,)

    def targets(self, labels: Sequence[Label], names: Sequence[str]) -> Targets:
        """Ones and zeros, float32 (n, C)."""
        places = {name: place for place, name in enumerate(names)}
        found = np.zeros((len(labels), len(names)), dtype=np.float32)
        for row, label in zip(found, labels, strict=True):
            row[[places[name] for name in self.classes_in(label)]] = 1
        return found

    def class_weights(self, targets: Targets, classes: int) -> torch.Tensor:
        """What a positive counts for beside a negative: negatives / positives of the class, float32 (C,)."""
        positives = np.maximum(targets.sum(axis=0), 1)
        return torch.from_numpy(((len(targets) - positives) / positives).clip(min=1e-3).astype(np.float32))

    def sample_weights(self, targets: Targets, weights: torch.Tensor | None) -> npt.NDArray[np.float64]:
        """One each: the weights are of classes within a sample."""
        return np.ones(len(targets))

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        """Mean binary cross-entropy over samples and classes: logits and targets (B, C), weights (C,) or None."""
        return F.binary_cross_entropy_with_logits(outputs.float(), targets, pos_weight=weights)

    def figures(self, outputs: torch.Tensor, targets: torch.Tensor) -> dict[str, float]:
        """Macro- and micro-F1 at the threshold, mean average precision, mean loss of logits and targets (n, C)."""
        from torchmetrics.functional.classification import multilabel_f1_score

        classes, scores, wanted = outputs.shape[1], torch.sigmoid(outputs.float()), targets.int()
        macro, micro = (
            multilabel_f1_score(scores, wanted, num_labels=classes, threshold=self.threshold, average=average)
            for average in ("macro", "micro")
        )
        return {
            "macro_f1": float(macro),
            "micro_f1": float(micro),
            "mean_average_precision": _mean_average_precision(scores, wanted),
            LOSS: float(F.binary_cross_entropy_with_logits(outputs.float(), targets)),
        }

    def columns(self, names: Sequence[str]) -> Columns:
        """The predicted classes, and the score of each class."""
        return {"labels": "texts", **{f"score_{name}": "number" for name in names}}

    def predictions(self, outputs: torch.Tensor, names: Sequence[str]) -> list[dict[str, Any]]:
        """Scores are the sigmoid, 0 to 1; predicted is what reaches the threshold."""
        return [
            {"labels": [name for name, score in zip(names, row, strict=True) if score >= self.threshold]}
            | {f"score_{name}": score for name, score in zip(names, row, strict=True)}
            for row in torch.sigmoid(outputs.float()).tolist()
        ]


def _mean_average_precision(scores: torch.Tensor, wanted: torch.Tensor) -> float:
    """The mean over the classes that any sample has; 0 where there are none."""
    from torchmetrics.functional.classification import multilabel_average_precision

    present = wanted.any(dim=0)
    if not present.any():
        return 0.0
    kept = int(present.sum())
    return float(multilabel_average_precision(scores[:, present], wanted[:, present], num_labels=kept, average="macro"))
