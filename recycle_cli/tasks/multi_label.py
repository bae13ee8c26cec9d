"""Several classes a sample, each decided for itself."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows it by

from recycle_cli.corpus import TEXT, Example, Form, several_labels
from recycle_cli.errors import DataError
from recycle_cli.models import OpenPreprocessor, TaskLayer
from recycle_cli.models.outputs import Outputs
from recycle_cli.settings import ClassificationSettings
from recycle_cli.tasks.contract import LOSS, PredictionColumns, Task, ordered
from recycle_cli.tasks.head_layers import layer_of
from recycle_cli.tasks.label_encoding import LabelEncoder
from recycle_cli.tasks.scores import DenseScores
from recycle_cli.tasks.targets import Targets


@dataclass(frozen=True)
class MultiLabel(Task):
    """Classes by a sigmoid each; targets (n, C) float32 hold a one for each class of a sample, perhaps for none.

    `threshold`: the score from which a class is predicted.
    """

    threshold: float = 0.5
    settings: ClassificationSettings = ClassificationSettings(multi_label=True)  # noqa: RUF009 - frozen
    form: Form = TEXT

    read_label = staticmethod(several_labels)
    metrics = ("macro_f1", "micro_f1", "mean_average_precision", LOSS)
    mixes = pools = True

    def layer(self, names: Sequence[str]) -> TaskLayer:
        """A score for each class."""
        return layer_of("multi_label_classification", names, self.settings.layers)

    def encoder(self, names: Sequence[str] | None, preprocessor: OpenPreprocessor) -> LabelEncoder:
        """An encoder of sets of class names."""
        return LabelEncoder(self, names)

    def names_of(self, found: Iterable[str]) -> list[str]:
        """The classes in their order; raises DataError for fewer than two."""
        return ordered(found)

    def classes_in(self, label: Any) -> tuple[str, ...]:
        """The classes."""
        return label if isinstance(label, tuple) else (label,)

    def targets(self, labels: Sequence[Any], names: Sequence[str]) -> npt.NDArray[np.float32]:
        """Ones and zeros, float32 (n, C)."""
        places = {name: place for place, name in enumerate(names)}
        found = np.zeros((len(labels), len(names)), dtype=np.float32)
        for row, label in zip(found, labels, strict=True):
            row[[places[name] for name in self.classes_in(label)]] = 1
        return found

    def check_data(self, targets: Targets, names: Sequence[str], where: str = "") -> None:
        """Refuse to train if every record has every class, as records seem to whose labels are vectors of two flags."""
        if not where and len(targets) and targets.values.all():
            raise DataError(
                f"every record has all of the classes {', '.join(names)}, which leaves nothing to learn; if the labels "
                "are vectors of flags, write the names of the classes instead"
            )

    def weights(self, targets: Targets, names: Sequence[str]) -> torch.Tensor | None:
        """Balanced: negatives / positives of each class, float32 (C,): how much a positive counts beside a negative."""
        if self.settings.class_weights == "none":
            return None
        positives = np.maximum(targets.values.sum(axis=0), 1)
        return torch.from_numpy(((len(targets) - positives) / positives).clip(min=1e-3).astype(np.float32))

    def loss(
        self, outputs: Outputs, targets: torch.Tensor, weights: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Binary cross-entropy, the mean over the classes: logits and targets (B, C), weights (C,) or None."""
        smoothed = torch.lerp(targets, torch.full_like(targets, 0.5), self.settings.smoothing)
        each = F.binary_cross_entropy_with_logits(outputs.values.float(), smoothed, reduction="none")
        if weights is not None:
            each = each * torch.where(targets > 0, weights, 1.0)  # `pos_weight` would weigh what smoothing adds
        each = each.mean(dim=1)
        return each.sum(), each.new_tensor(len(each))

    def scores(self) -> DenseScores:
        """Keeps the logits."""
        return DenseScores(self.figures)

    def figures(self, logits: torch.Tensor, targets: torch.Tensor) -> dict[str, float]:
        """Macro- and micro-F1 at the threshold, mean average precision, mean loss of logits and targets (n, C)."""
        from torchmetrics.functional.classification import multilabel_f1_score

        classes, scores, wanted = logits.shape[1], torch.sigmoid(logits.float()), targets.int()
        macro, micro = (
            multilabel_f1_score(scores, wanted, num_labels=classes, threshold=self.threshold, average=average)
            for average in ("macro", "micro")
        )
        return {
            "macro_f1": float(macro),
            "micro_f1": float(micro),
            "mean_average_precision": _mean_average_precision(scores, wanted),
            LOSS: float(F.binary_cross_entropy_with_logits(logits.float(), targets)),
        }

    def columns(self, names: Sequence[str]) -> PredictionColumns:
        """The predicted classes, and the score of each class."""
        return {"labels": "texts", **{f"score_{name}": "number" for name in names}}

    def answers(
        self, outputs: Outputs, examples: Sequence[Example], names: Sequence[str], preprocessor: OpenPreprocessor
    ) -> list[dict[str, Any]]:
        """Scores are the sigmoid, 0 to 1; a class is predicted if its score reaches the threshold."""
        return [
            {"labels": [name for name, score in zip(names, row, strict=True) if score >= self.threshold]}
            | {f"score_{name}": score for name, score in zip(names, row, strict=True)}
            for row in torch.sigmoid(outputs.values.float()).tolist()
        ]

    def identity(self) -> dict[str, Any]:
        """The options by their names in version 1 of `recycle.json`."""
        own = self.settings
        return {"multi_label": True, "class_weights": own.class_weights, "label_smoothing": own.smoothing}

    def at_threshold(self, threshold: float) -> "MultiLabel":
        """The same task with another threshold."""
        return replace(self, threshold=threshold)

    def described(self, names: Sequence[str]) -> str:
        """The classes."""
        return f"Classes, of which a sample may have several: {', '.join(names)}"


def _mean_average_precision(scores: torch.Tensor, wanted: torch.Tensor) -> float:
    """The mean over the classes that any sample has; 0 if there are none."""
    from torchmetrics.functional.classification import multilabel_average_precision

    present = wanted.any(dim=0)
    if not present.any():
        return 0.0
    kept = int(present.sum())
    return float(multilabel_average_precision(scores[:, present], wanted[:, present], num_labels=kept, average="macro"))
