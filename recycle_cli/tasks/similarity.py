"""Similarity learning on groups: an embedding in which samples of one group lie near each other."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows it by

from recycle_cli.errors import UsageError
from recycle_cli.keys import Label
from recycle_cli.models import TaskLayer
from recycle_cli.settings import SimilaritySettings
from recycle_cli.tasks.contract import Columns, Targets, only_name, ordered, places
from recycle_cli.tasks.losses import batch_hard_triplet, supervised_contrastive
from recycle_cli.tasks.retrieval import r_precision


@dataclass(frozen=True)
class Similarity:
    """A vector a sample, by cosine; targets (n,) are numbers of groups, which mean nothing beyond the data at hand."""

    settings: SimilaritySettings = SimilaritySettings()  # noqa: RUF009 - frozen

    metrics = ("rrp",)
    grouped = True
    closed = False
    mixes = False

    def layer(self, names: Sequence[str]) -> TaskLayer:
        """An embedding."""
        return TaskLayer("embedding", head=self.settings.embedding)

    def names_of(self, found: Iterable[str]) -> list[str]:
        """At least two."""
        return ordered(found, "groups")

    def classes_in(self, label: Label) -> tuple[str, ...]:
        """The group."""
        return only_name(label, "groups")

    def targets(self, labels: Sequence[Label], names: Sequence[str]) -> Targets:
        """Numbers of groups, int64 (n,)."""
        return places((name for label in labels for name in self.classes_in(label)), names)

    def class_weights(self, targets: Targets, classes: int) -> torch.Tensor:
        """None: batches are drawn by group."""
        raise UsageError("--class-weights balanced: --task similarity draws batches by group; leave the option out")

    def sample_weights(self, targets: Targets, weights: torch.Tensor | None) -> npt.NDArray[np.float64]:
        """One each, where the batch has another of the group, and for the triplet loss one of another group."""
        _, group, sizes = np.unique(targets, return_inverse=True, return_counts=True)
        others = len(sizes) > 1 or self.settings.loss != "triplet"
        return ((sizes > 1) & others).astype(np.float64)[group]

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        """Over a batch: vectors (B, E), groups (B,)."""
        if self.settings.loss == "triplet":
            return batch_hard_triplet(outputs, targets, self.settings.margin)
        return supervised_contrastive(outputs, targets, self.settings.temperature)

    def figures(self, outputs: torch.Tensor, targets: torch.Tensor) -> dict[str, float]:
        """Retrieval R-precision of vectors (n, E) and groups (n,)."""
        return {"rrp": r_precision(outputs, targets)}

    def columns(self, names: Sequence[str]) -> Columns:
        """The vector."""
        return {"embedding": "numbers"}

    def predictions(self, outputs: torch.Tensor, names: Sequence[str]) -> list[dict[str, Any]]:
        """Vectors of length one, so that their product is their cosine."""
        return [{"embedding": vector} for vector in F.normalize(outputs.float(), dim=1).tolist()]
