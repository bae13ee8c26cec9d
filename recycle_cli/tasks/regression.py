"""Regression: one or several numbers a sample, of texts, of pairs of texts or of images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows it by

from recycle_cli.corpus import TEXT, Example, Form, NumbersForm, ReadLabel, read_numbers
from recycle_cli.errors import UsageError
from recycle_cli.models import OpenPreprocessor, TaskLayer
from recycle_cli.models.outputs import Outputs
from recycle_cli.settings import RegressionSettings, TrainingSettings
from recycle_cli.tasks.contract import LOSS, RMSE, PredictionColumns, Task
from recycle_cli.tasks.head_layers import layer_of
from recycle_cli.tasks.label_encoding import Encoded, UnknownLabel
from recycle_cli.tasks.scores import DenseScores
from recycle_cli.tasks.targets import Targets

ONLY = "number"
"""The name of a single output."""


@dataclass(frozen=True)
class Regression(Task):
    """Numbers as they are, in the user's own unit; targets (n, K) float32, one column for each number."""

    settings: RegressionSettings = RegressionSettings()  # noqa: RUF009 - frozen
    plain: Form = TEXT

    metrics = ("pearson", "spearman", RMSE, LOSS)
    pools = True

    @property
    def form(self) -> Form:  # type: ignore[override]
        """A plain record, with its numbers in one column or in several."""
        return NumbersForm(self.plain, self.settings.target_columns) if self.settings.target_columns else self.plain

    @property
    def read_label(self) -> ReadLabel:  # type: ignore[override]
        """All numbers of a record."""
        form = self.form
        return form.read if isinstance(form, NumbersForm) else read_numbers

    def layer(self, names: Sequence[str]) -> TaskLayer:
        """A number for each of the names."""
        return layer_of("regression", names, self.settings.layers)

    def encoder(self, names: Sequence[str] | None, preprocessor: OpenPreprocessor) -> "NumbersEncoder":
        """An encoder of tuples of numbers."""
        return NumbersEncoder(self.settings.target_columns or names)

    def loss(
        self, outputs: Outputs, targets: torch.Tensor, weights: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Squared error, the mean over the numbers of a sample: outputs and targets (B, K)."""
        total = F.mse_loss(outputs.values.float(), targets, reduction="sum") / targets.shape[1]
        return total, total.new_tensor(len(targets))

    def scores(self) -> DenseScores:
        """Keeps the outputs."""
        return DenseScores(self.figures)

    def figures(self, outputs: torch.Tensor, targets: torch.Tensor) -> dict[str, float]:
        """Pearson's and Spearman's correlation and the root of the mean squared error, each the mean over the K
        numbers, and the mean squared error of all: outputs and targets (n, K). A correlation with a constant is 0."""
        from torchmetrics.functional.regression import pearson_corrcoef, spearman_corrcoef

        found, wanted = outputs.double(), targets.double()
        squares = (found - wanted).square().mean(dim=0)
        return {
            "pearson": _mean_over_numbers(pearson_corrcoef, found, wanted),
            "spearman": _mean_over_numbers(spearman_corrcoef, found, wanted),
            RMSE: float(squares.sqrt().mean()),
            LOSS: float(squares.mean()),
        }

    def columns(self, names: Sequence[str]) -> PredictionColumns:
        """The number, or each of them by its name."""
        return dict.fromkeys(_columns(names), "number")

    def answers(
        self, outputs: Outputs, examples: Sequence[Example], names: Sequence[str], preprocessor: OpenPreprocessor
    ) -> list[dict[str, Any]]:
        """The outputs as they are."""
        return [dict(zip(_columns(names), row, strict=True)) for row in outputs.values.float().tolist()]

    def check_options(self, training: TrainingSettings) -> None:
        """Refuse a column that is named twice."""
        named = self.settings.target_columns
        if len(set(named)) < len(named):
            raise UsageError(f"--target-columns {','.join(named)}: a column is named twice; name each once")

    def identity(self) -> dict[str, Any]:
        """The columns of the numbers, which predicting finds again."""
        return {"target_columns": list(self.settings.target_columns)}

    def described(self, names: Sequence[str]) -> str:
        """The numbers."""
        return "Its output is a number" if len(names) == 1 else f"Its outputs are numbers: {', '.join(names)}"

    def pipeline(self, name: str, library: str) -> str:
        """A hub knows no regression of its own."""
        return f"{self.form.modality}-classification"


class NumbersEncoder:
    """Encodes labels that are tuples of numbers, all of one length. `names`: those of the numbers; None names them."""

    def __init__(self, names: Sequence[str] | None) -> None:
        self._names = None if names is None else list(names)
        self._rows: list[tuple[float, ...]] = []
        self._known: list[bool] = []

    def add(self, example: Example, label: Any) -> None:
        """Add the numbers, once for each sample of the example. Raises UnknownLabel for another count of numbers."""
        if label is not None and self._names is None:
            self._names = [ONLY] if len(label) == 1 else [str(place) for place in range(len(label))]
        if label is not None and len(label) != len(self._names or ()):
            expected = len(self._names or ())
            raise UnknownLabel(
                f"a label has {len(label)} numbers, and the run gives {expected}",
                f"{example.named}: a label of {len(label)} numbers, expected {expected} as in the others",
            )
        self._rows += [label or ()] * len(example.samples)
        self._known += [label is not None] * len(example.samples)

    def finish(self) -> Encoded:
        """Targets (n, K) float32; those of a sample without a label are zeros, which mean nothing."""
        names = self._names or []
        empty = (0.0,) * len(names)
        values = np.array([row or empty for row in self._rows], dtype=np.float32).reshape(len(self._rows), len(names))
        known = np.array(self._known, dtype=bool)
        return Encoded(Targets(values), names, None if known.all() else known)


def _columns(names: Sequence[str]) -> list[str]:
    return [name if name == ONLY else f"{ONLY}_{name}" for name in names]


def _mean_over_numbers(
    correlation: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], found: torch.Tensor, wanted: torch.Tensor
) -> float:
    each = [
        0.0 if bool((one == one[0]).all() or (other == other[0]).all()) else float(correlation(one, other))
        for one, other in zip(found.T, wanted.T, strict=True)
    ]
    return sum(each) / len(each)
