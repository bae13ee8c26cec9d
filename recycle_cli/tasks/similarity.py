"""Similarity learning on groups: an embedding in which samples of one group lie near each other."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows it by

from recycle_cli.batches import Grouped, Indices, met_share
from recycle_cli.corpus import TEXT, Example, Form
from recycle_cli.errors import DataError, UsageError
from recycle_cli.models import OpenPreprocessor, TaskLayer
from recycle_cli.models.outputs import Outputs
from recycle_cli.settings import SimilaritySettings, TrainingSettings
from recycle_cli.tasks.contract import PredictionColumns, Task, only_name, ordered, places
from recycle_cli.tasks.label_encoding import LabelEncoder
from recycle_cli.tasks.losses import batch_hard_triplet, supervised_contrastive
from recycle_cli.tasks.retrieval import r_precision
from recycle_cli.tasks.scores import DenseScores
from recycle_cli.tasks.targets import Targets

MOST_TO_COMPARE = 100_000
"""Most labelled samples that are compared with one another, since the time grows with the square of their number."""

LEAST_MET = 0.9
"""Of the samples in groups of several, the least share that must meet one of their group and one of another in a batch,
as `met_share` counts it."""

PIPELINES = {
    "sentence-transformers": "sentence-similarity",
    "transformers": "image-feature-extraction",
    "torchvision": "image-feature-extraction",
}
"""What a model hub calls an embedder, by its library."""


@dataclass(frozen=True)
class Similarity(Task):
    """A vector a sample, by cosine; targets (n,) are numbers of groups, which mean nothing beyond the data at hand."""

    settings: SimilaritySettings = SimilaritySettings()  # noqa: RUF009 - frozen
    form: Form = TEXT

    metrics = ("rrp",)
    closed = False
    draws_by_label = True

    @property
    def comparable(self) -> int:  # type: ignore[override]
        """Each labelled sample is compared with all the others."""
        return MOST_TO_COMPARE

    def layer(self, names: Sequence[str]) -> TaskLayer:
        """An embedding."""
        return TaskLayer("embedding", head=self.settings.embedding)

    def encoder(self, names: Sequence[str] | None, preprocessor: OpenPreprocessor) -> LabelEncoder:
        """An encoder of group names."""
        return LabelEncoder(self, names)

    def names_of(self, found: Iterable[str]) -> list[str]:
        """The groups in their order; raises DataError for fewer than two."""
        return ordered(found, "groups")

    def classes_in(self, label: Any) -> tuple[str, ...]:
        """The only group in the label."""
        return only_name(label, "groups")

    def targets(self, labels: Sequence[Any], names: Sequence[str]) -> Indices:
        """Numbers of groups, int64 (n,)."""
        return places((name for label in labels for name in self.classes_in(label)), names)

    def sampler(self, targets: Targets, training: TrainingSettings, least: int = 1) -> Grouped:
        """Batches in which samples of a group come together."""
        return Grouped(training.batch_size, training.shuffle_seed, targets.values, self.settings.group_samples)

    def loss(
        self, outputs: Outputs, targets: torch.Tensor, weights: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Over the samples that find others to be compared with: vectors (B, E), groups (B,)."""
        if self.settings.loss == "triplet":
            each = batch_hard_triplet(outputs.values, targets, self.settings.margin)
        else:
            each = supervised_contrastive(outputs.values, targets, self.settings.temperature)
        return each.sum(), each.new_tensor(len(each))

    def scores(self) -> DenseScores:
        """Keeps the vectors."""
        return DenseScores(self.figures)

    def figures(self, vectors: torch.Tensor, groups: torch.Tensor) -> dict[str, float]:
        """Retrieval R-precision of vectors (n, E) and groups (n,)."""
        return {"rrp": r_precision(vectors, groups)}

    def columns(self, names: Sequence[str]) -> PredictionColumns:
        """The vector."""
        return {"embedding": "numbers"}

    def answers(
        self, outputs: Outputs, examples: Sequence[Example], names: Sequence[str], preprocessor: OpenPreprocessor
    ) -> list[dict[str, Any]]:
        """Vectors of length one, so that their product is their cosine."""
        return [{"embedding": vector} for vector in self.vectors(outputs).tolist()]

    def vectors(self, outputs: Outputs) -> torch.Tensor:
        """The outputs, each at length one."""
        return F.normalize(outputs.values.float(), dim=1)

    def check_options(self, training: TrainingSettings) -> None:
        """Refuse the number of the other loss, and batches that are too small for two groups."""
        usual, asked = SimilaritySettings(), self.settings
        idle, now, default = (
            ("--temperature", asked.temperature, usual.temperature)
            if asked.loss == "triplet"
            else ("--margin", asked.margin, usual.margin)
        )
        if now != default:
            raise UsageError(f"{idle} {now}: --loss {asked.loss} has none; leave it out")
        together = asked.group_samples + 1  # a last one that would be alone joins the others
        if training.batch_size < 2 * together:
            raise UsageError(
                f"--batch-size {training.batch_size} leaves no room for two groups of up to {together} samples; give "
                f"at least {2 * together}, or fewer --group-samples"
            )

    def check_data(self, targets: Targets, names: Sequence[str], where: str = "") -> None:
        """Refuse data without two groups, or without two samples of one group."""
        groups = targets.values
        sizes = np.unique(groups, return_counts=True)[1]
        if sizes.max() < 2:
            raise DataError(
                f"{where}no two of the {len(groups):,} samples have the same label, expected groups; check the label "
                "column"
            )
        if len(sizes) < 2:
            raise DataError(
                f"{where}all of the {len(groups):,} samples have the label {names[groups[0]]!r}, expected at least two "
                "groups; give samples of another, too"
            )

    def check_batches(self, batches: Sequence[Indices], targets: Targets) -> str | None:
        """Most samples must share their batch with another of their group and with one of another group."""
        met = met_share(batches, targets.values)
        if met >= LEAST_MET:
            return None
        return (
            f"{met:.0%} of the samples would share a batch with another of their group and with one of another group, "
            f"expected {LEAST_MET:.0%}"
        )

    def identity(self) -> dict[str, Any]:
        """The options by their names in version 1 of `recycle.json`."""
        return {"multi_label": False, "class_weights": "none", "similarity": asdict(self.settings)}

    def described(self, names: Sequence[str]) -> str:
        """The vector."""
        return "Its outputs are an embedding"

    def pipeline(self, name: str, library: str) -> str:
        """The name depends on whether the vectors are of texts or of images, which the library tells."""
        return PIPELINES[library]
