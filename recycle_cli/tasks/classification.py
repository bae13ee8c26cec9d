"""Classification: one of several classes a sample, of texts or of images."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows it by

from recycle_cli.keys import Label
from recycle_cli.models import TaskLayer
from recycle_cli.tasks.contract import LOSS, Columns, Targets, only_name, ordered, places


class Classification:
    """One class a sample, by a softmax over all; targets (n,) are indices into the names."""

    metrics = ("macro_f1", "accuracy", LOSS)
    grouped = False
    closed = True
    mixes = True

    def layer(self, names: Sequence[str]) -> TaskLayer:
        """A score for each class."""
        return TaskLayer("single_label_classification", tuple(names))

    def names_of(self, found: Iterable[str]) -> list[str]:
        """At least two."""
        return ordered(found)

    def classes_in(self, label: Label) -> tuple[str, ...]:
        """The class."""
        return only_name(label, remedy="; add --multi-label")

    def targets(self, labels: Sequence[Label], names: Sequence[str]) -> Targets:
        """Indices, int64 (n,)."""
        return places((name for label in labels for name in self.classes_in(label)), names)

    def class_weights(self, targets: Targets, classes: int) -> torch.Tensor:
        """n / (classes * count), float32 (classes,), as scikit-learn's `balanced`."""
        counts = np.maximum(np.bincount(targets, minlength=classes), 1)
        return torch.from_numpy((len(targets) / (classes * counts)).astype(np.float32))

    def sample_weights(self, targets: Targets, weights: torch.Tensor | None) -> npt.NDArray[np.float64]:
        """The weight of each sample's class."""
        return np.ones(len(targets)) if weights is None else weights.cpu().double().numpy()[targets]

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        """Mean cross-entropy: logits (B, C), targets (B,), class weights (C,) or None."""
        return F.cross_entropy(outputs.float(), targets, weight=weights)

    def figures(self, outputs: torch.Tensor, targets: torch.Tensor) -> dict[str, float]:
        """Accuracy, macro-F1 and mean loss of logits (n, C) against targets (n,)."""
        from torchmetrics.functional.classification import multiclass_accuracy, multiclass_f1_score

        classes = outputs.shape[1]
        return {
            "accuracy": float(multiclass_accuracy(outputs, targets, num_classes=classes, average="micro")),
            "macro_f1": float(multiclass_f1_score(outputs, targets, num_classes=classes, average="macro")),
            LOSS: float(F.cross_entropy(outputs.float(), targets)),
        }

    def columns(self, names: Sequence[str]) -> Columns:
        """The class, its score, and the score of each class."""
        return {"label": "text", "score": "number", **{f"score_{name}": "number" for name in names}}

    def predictions(self, outputs: torch.Tensor, names: Sequence[str]) -> list[dict[str, Any]]:
        """Scores are the softmax, 0 to 1."""
        scores = torch.softmax(outputs.float(), dim=1)
        best, at = scores.max(dim=1)
        return [
            {"label": names[index], "score": score}
            | {f"score_{name}": one for name, one in zip(names, row, strict=True)}
            for index, score, row in zip(at.tolist(), best.tolist(), scores.tolist(), strict=True)
        ]
