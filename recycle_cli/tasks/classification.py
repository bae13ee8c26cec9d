"""Classification: one of several classes a sample, of texts or of images."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows it by

from recycle_cli.batches import Indices
from recycle_cli.corpus import TEXT, Example, Form
from recycle_cli.errors import DataError
from recycle_cli.models import OpenPreprocessor, TaskLayer
from recycle_cli.models.outputs import Outputs
from recycle_cli.settings import ClassificationSettings
from recycle_cli.tasks.contract import LOSS, PredictionColumns, Task, only_name, ordered, places
from recycle_cli.tasks.head_layers import layer_of
from recycle_cli.tasks.label_encoding import LabelEncoder
from recycle_cli.tasks.scores import DenseScores
from recycle_cli.tasks.targets import Targets

MANY_FRACTIONS, MANY_NUMBERS = 20, 100
"""Most different numbers that are taken for names of classes, if some of them have fractions and if none has."""


def look_measured(names: Sequence[str]) -> list[str]:
    """Three of the labels, if all are numbers that look like measured values; else none.

    Numbers of classes are whole, begin at 0 or 1 and have few gaps, however many there are.
    """
    try:
        numbers = np.array([float(name) for name in names])
    except ValueError:
        return []
    whole = bool((numbers == np.floor(numbers)).all())
    dense = whole and numbers.min() in (0, 1) and numbers.max() < 1.1 * len(numbers)
    if dense or len(names) <= (MANY_NUMBERS if whole else MANY_FRACTIONS):
        return []
    return [names[place] for place in np.linspace(0, len(names) - 1, 3).astype(int).tolist()]


@dataclass(frozen=True)
class Classification(Task):
    """One class a sample, by a softmax over all; targets (n,) are indices into the names."""

    settings: ClassificationSettings = ClassificationSettings()  # noqa: RUF009 - frozen
    form: Form = TEXT

    metrics = ("macro_f1", "accuracy", LOSS)
    mixes = pools = True

    def layer(self, names: Sequence[str]) -> TaskLayer:
        """A score for each class."""
        return layer_of("single_label_classification", names, self.settings.layers)

    def encoder(self, names: Sequence[str] | None, preprocessor: OpenPreprocessor) -> LabelEncoder:
        """An encoder of class names."""
        return LabelEncoder(self, names)

    def names_of(self, found: Iterable[str]) -> list[str]:
        """The classes in their order; raises DataError for fewer than two, and for numbers that look measured."""
        names = ordered(found)
        if not self.settings.numbers_as_classes and (measured := look_measured(names)):
            raise DataError(
                f"the label column holds {len(names):,} different numbers, such as {', '.join(measured)}, which look "
                "like measured values: --task regression learns numbers; if they are the names of classes, add "
                "--numbers-as-classes"
            )
        return names

    def classes_in(self, label: Any) -> tuple[str, ...]:
        """The only class in the label."""
        return only_name(label, remedy="; add --multi-label")

    def targets(self, labels: Sequence[Any], names: Sequence[str]) -> Indices:
        """The index of each label's class, int64 (n,)."""
        return places((name for label in labels for name in self.classes_in(label)), names)

    def weights(self, targets: Targets, names: Sequence[str]) -> torch.Tensor | None:
        """Balanced: n / (classes * count), float32 (classes,), as scikit-learn's `balanced`."""
        if self.settings.class_weights == "none":
            return None
        counts = np.maximum(np.bincount(targets.values, minlength=len(names)), 1)
        return torch.from_numpy((len(targets) / (len(names) * counts)).astype(np.float32))

    def loss(
        self, outputs: Outputs, targets: torch.Tensor, weights: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Cross-entropy: logits (B, C), targets (B,), class weights (C,) or None; each sample counts its weight."""
        smoothing = self.settings.smoothing
        each = F.cross_entropy(outputs.values.float(), targets, reduction="none", label_smoothing=smoothing)
        if weights is None:
            return each.sum(), each.new_tensor(len(targets))
        # `weight` of cross_entropy would weigh each class's share of a smoothed label by the weight of that class.
        own = weights[targets]
        return (own * each).sum(), own.sum()

    def scores(self) -> DenseScores:
        """Keeps the logits."""
        return DenseScores(self.figures)

    def figures(self, logits: torch.Tensor, targets: torch.Tensor) -> dict[str, float]:
        """Accuracy, macro-F1 and mean loss of logits (n, C) against targets (n,)."""
        from torchmetrics.functional.classification import multiclass_accuracy, multiclass_f1_score

        classes = logits.shape[1]
        return {
            "accuracy": float(multiclass_accuracy(logits, targets, num_classes=classes, average="micro")),
            "macro_f1": float(multiclass_f1_score(logits, targets, num_classes=classes, average="macro")),
            LOSS: float(F.cross_entropy(logits.float(), targets)),
        }

    def columns(self, names: Sequence[str]) -> PredictionColumns:
        """The class, its score, and the score of each class."""
        return {"label": "text", "score": "number", **{f"score_{name}": "number" for name in names}}

    def answers(
        self, outputs: Outputs, examples: Sequence[Example], names: Sequence[str], preprocessor: OpenPreprocessor
    ) -> list[dict[str, Any]]:
        """Scores are the softmax, 0 to 1."""
        scores = torch.softmax(outputs.values.float(), dim=1)
        best, at = scores.max(dim=1)
        return [
            {"label": names[index], "score": score}
            | {f"score_{name}": one for name, one in zip(names, row, strict=True)}
            for index, score, row in zip(at.tolist(), best.tolist(), scores.tolist(), strict=True)
        ]

    def identity(self) -> dict[str, Any]:
        """The options by their names in version 1 of `recycle.json`."""
        own = self.settings
        return {"multi_label": False, "class_weights": own.class_weights, "label_smoothing": own.smoothing}
