"""Text classification: one of several classes a sample."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows it by

from recycle_cli.errors import DataError, UsageError

METRICS = ("macro_f1", "accuracy", "loss")


def class_names(labels: Sequence[str]) -> list[str]:
    """The classes of the training labels, numbers in numeric order. Raises DataError where there is only one."""
    names = sorted(set(labels), key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0, name))
    if len(names) < 2:
        found = f"only the class {names[0]!r}" if names else "no labelled record"
        raise DataError(f"the training data hold {found}; classification needs at least two classes")
    return names


def balanced_weights(targets: npt.NDArray[np.int64], classes: int) -> torch.Tensor:
    """Class weights n / (classes * count), float32 (classes,), as scikit-learn's `balanced`."""
    counts = np.maximum(np.bincount(targets, minlength=classes), 1)
    return torch.from_numpy((len(targets) / (classes * counts)).astype(np.float32))


def loss(logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    """Mean cross-entropy over a batch: logits (B, C), targets (B,), class weights (C,) or None."""
    return F.cross_entropy(logits.float(), targets, weight=weights)


def metrics(logits: torch.Tensor, targets: torch.Tensor) -> dict[str, float]:
    """Accuracy, macro-F1 and mean loss of logits (n, C) against targets (n,)."""
    from torchmetrics.functional.classification import multiclass_accuracy, multiclass_f1_score

    classes = logits.shape[1]
    return {
        "accuracy": float(multiclass_accuracy(logits, targets, num_classes=classes, average="micro")),
        "macro_f1": float(multiclass_f1_score(logits, targets, num_classes=classes, average="macro")),
        "loss": float(F.cross_entropy(logits.float(), targets)),
    }


def is_better(metric: str, new: Mapping[str, float], old: Mapping[str, float] | None) -> bool:
    """Whether `new` beats `old` by this metric; a loss is better when smaller."""
    if metric not in METRICS:
        raise UsageError(f"--metric {metric} is not known; take one of {', '.join(METRICS)}")
    if old is None:
        return True
    return new[metric] < old[metric] if metric == "loss" else new[metric] > old[metric]


def predictions(logits: torch.Tensor, names: Sequence[str]) -> list[dict[str, object]]:
    """A prediction a sample: `label`, its `score` (softmax, 0 to 1), and every class's score under `scores`."""
    scores = torch.softmax(logits.float(), dim=1)
    best, at = scores.max(dim=1)
    return [
        {"label": names[index], "score": score, "scores": dict(zip(names, row, strict=True))}
        for index, score, row in zip(at.tolist(), best.tolist(), scores.tolist(), strict=True)
    ]
