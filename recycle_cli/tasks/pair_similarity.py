"""Similarity on pairs: an embedding in which a question lies near its answer, or two texts as near as they are
alike."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows it by

from recycle_cli.batches import Paired
from recycle_cli.corpus import Example, Form, PartnersForm, ReadLabel, read_numbers
from recycle_cli.corpus.records import BadRecord
from recycle_cli.errors import DataError, UsageError
from recycle_cli.keys import keys_of
from recycle_cli.models import OpenPreprocessor, TaskLayer
from recycle_cli.models.outputs import Outputs
from recycle_cli.settings import PairSettings, SampleSettings, TrainingSettings
from recycle_cli.tasks.contract import PredictionColumns, Task
from recycle_cli.tasks.label_encoding import Encoded
from recycle_cli.tasks.pair_losses import cosent, multiple_negatives
from recycle_cli.tasks.pair_retrieval import partner_figures
from recycle_cli.tasks.scores import DenseScores
from recycle_cli.tasks.similarity import MOST_TO_COMPARE, PIPELINES
from recycle_cli.tasks.targets import Targets


@dataclass(frozen=True)
class PairSimilarity(Task):
    """A vector for each text of a pair, compared by cosine. Targets (n, 2): the number of a sample's content, and the
    score of its pair (0 without one)."""

    settings: PairSettings = PairSettings()  # noqa: RUF009 - frozen

    closed = False

    @property
    def scored(self) -> bool:
        """Whether pairs are learnt by scores."""
        return self.settings.loss != "multiple-negatives"

    @property
    def form(self) -> Form:  # type: ignore[override]
        """The form of a pair: two samples a record."""
        return PartnersForm(self.scored)

    @property
    def read_label(self) -> ReadLabel:  # type: ignore[override]
        """Reads the score of a pair."""
        return _score

    @property
    def needs_labels(self) -> bool:  # type: ignore[override]
        """Only a loss on scores needs them."""
        return self.scored

    @property
    def metrics(self) -> tuple[str, ...]:  # type: ignore[override]
        """Retrieval of the partner, or the correlation with the scores."""
        return ("spearman",) if self.scored else ("rrk", "precision_at_1", "recall_at_10", "ndcg_at_10")

    @property
    def comparable(self) -> int | None:  # type: ignore[override]
        """Each sample is compared with all the others, unless pairs are scored."""
        return None if self.scored else MOST_TO_COMPARE

    def layer(self, names: Sequence[str]) -> TaskLayer:
        """An embedding."""
        return TaskLayer("embedding", head=self.settings.embedding)

    def encoder(self, names: Sequence[str] | None, preprocessor: OpenPreprocessor) -> "PairEncoder":
        """An encoder of pairs."""
        return PairEncoder(self.scored)

    def samples_as(self, name: str) -> SampleSettings:
        """Two texts a record."""
        return SampleSettings(name)

    def sampler(self, targets: Targets, training: TrainingSettings, least: int = 1) -> Paired:
        """Batches of whole pairs, `--batch-size` of them."""
        return Paired(training.batch_size, training.shuffle_seed)

    def loss(
        self, outputs: Outputs, targets: torch.Tensor, weights: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Over the pairs of a batch: vectors (2B, E), targets (2B, 2)."""
        first, second = outputs.values[0::2], outputs.values[1::2]
        pairs = outputs.values.new_tensor(len(first), dtype=torch.float32)
        if not self.scored:
            contents = (targets[0::2, 0], targets[1::2, 0])
            return multiple_negatives(first, second, contents, self.settings.scale).sum(), pairs
        cosines, scores = F.cosine_similarity(first.float(), second.float()), targets[0::2, 1].float()
        if self.settings.loss == "cosent":
            return cosent(cosines, scores, self.settings.scale) * len(first), pairs
        return F.mse_loss(cosines, scores, reduction="sum"), pairs

    def scores(self) -> DenseScores:
        """Keeps the vectors."""
        return DenseScores(self.figures)

    def figures(self, vectors: torch.Tensor, targets: torch.Tensor) -> dict[str, float]:
        """How well partners are found, or Spearman's correlation of cosines and scores."""
        if not self.scored:
            return partner_figures(vectors, targets[:, 0].long())
        from torchmetrics.functional.regression import spearman_corrcoef

        cosines = F.cosine_similarity(vectors[0::2].double(), vectors[1::2].double())
        scores = targets[0::2, 1]
        still = bool((cosines == cosines[0]).all() or (scores == scores[0]).all())
        return {"spearman": 0.0 if still else float(spearman_corrcoef(cosines, scores))}

    def columns(self, names: Sequence[str]) -> PredictionColumns:
        """The cosine of the two texts, and the vector of each."""
        return {"similarity": "number", "embedding": "numbers", "embedding_pair": "numbers"}

    def answers(
        self, outputs: Outputs, examples: Sequence[Example], names: Sequence[str], preprocessor: OpenPreprocessor
    ) -> list[dict[str, Any]]:
        """Vectors of length one, so that their product is their cosine."""
        vectors = self.vectors(outputs)
        cosines = (vectors[0::2] * vectors[1::2]).sum(dim=1).tolist()
        both = zip(cosines, vectors[0::2].tolist(), vectors[1::2].tolist(), strict=True)
        return [{"similarity": cosine, "embedding": one, "embedding_pair": other} for cosine, one, other in both]

    def vectors(self, outputs: Outputs) -> torch.Tensor:
        """The outputs, each at length one."""
        return F.normalize(outputs.values.float(), dim=1)

    def check_options(self, training: TrainingSettings) -> None:
        """Refuse batches of one pair, and --pair-scale with a loss that has none."""
        if self.settings.loss == "cosine-mse" and self.settings.scale != PairSettings().scale:
            raise UsageError(f"--pair-scale {self.settings.scale:g}: --pair-loss cosine-mse has none; leave it out")
        if training.batch_size < 2 and self.settings.loss != "cosine-mse":
            raise UsageError("--batch-size 1: a pair is told from the others of its batch; give at least 2")

    def check_data(self, targets: Targets, names: Sequence[str], where: str = "") -> None:
        """Refuse data without two different pairs, and scores beyond -1 to 1 if the cosine learns them."""
        contents, scores = targets.values[:, 0], targets.values[:, 1]
        if not self.scored and len({frozenset(pair) for pair in contents.reshape(-1, 2).tolist()}) < 2:
            raise DataError(f"{where}expected at least two different pairs; give more records")
        if self.settings.loss == "cosine-mse" and (wrong := scores[np.abs(scores) > 1]).size:
            raise DataError(
                f"{where}a score is {wrong[0]:g}, and cosines go from -1 to 1; scale the scores, or take --pair-loss "
                "cosent, which compares them with one another"
            )

    def identity(self) -> dict[str, Any]:
        """The options of pairs."""
        return {"pairs": asdict(self.settings)}

    def described(self, names: Sequence[str]) -> str:
        """The vector."""
        return "Its outputs are an embedding"

    def pipeline(self, name: str, library: str) -> str:
        """As of every embedding of texts."""
        return PIPELINES[library]


class PairEncoder:
    """Numbers the contents of pairs in the order of their first appearance, and keeps scores if they are `scored`."""

    def __init__(self, scored: bool) -> None:
        self._scored = scored
        self._numbers: dict[bytes, int] = {}
        self._rows: list[tuple[float, float]] = []
        self._known: list[bool] = []

    def add(self, example: Example, label: Any) -> None:
        """Add the two texts and their score, if they have one."""
        keys, digests = keys_of(example.samples)
        for key, digest in zip(keys, digests, strict=True):
            number = self._numbers.setdefault(key.tobytes() + digest.tobytes(), len(self._numbers))
            self._rows.append((float(number), 0.0 if label is None else float(label)))
            self._known.append(label is not None)

    def finish(self) -> Encoded:
        """Targets (n, 2) float64."""
        known = np.array(self._known, dtype=bool)
        values = np.array(self._rows, dtype=np.float64).reshape(-1, 2)
        return Encoded(Targets(values), [], known if self._scored and not known.all() else None)


def _score(values: Mapping[str, Any], column: str) -> float:
    """One number. Raises BadRecord."""
    numbers = read_numbers(values, column)
    if len(numbers) != 1:
        raise BadRecord(f"column {column!r} holds {len(numbers)} numbers, expected one score")
    return float(numbers[0])
