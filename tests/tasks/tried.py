"""A task tried on small data: a store, training from it and in place, resuming, and predicting."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from recycle_cli.settings import (
    CorpusSettings,
    ModelSettings,
    PrecomputeSettings,
    PredictSettings,
    TaskSettings,
    TrainingSettings,
)
from recycle_cli.verbs.finetune import Finetuned, Job, finetune
from recycle_cli.verbs.precompute import precompute
from recycle_cli.verbs.predict import Predicted, predict

SETTINGS = TrainingSettings(epochs=2, batch_size=8, learning_rate=2e-3)


@dataclass(frozen=True)
class Tried:
    """The commands with the names of one task, its data and its model filled in.

    precomputed  settings of `precompute` beside the cut and the dtype
    """

    name: str
    settings: TaskSettings
    folder: Path
    model: ModelSettings
    train: CorpusSettings
    test: CorpusSettings
    precomputed: dict[str, Any] = field(default_factory=dict)

    @property
    def store(self) -> str:
        """The path of its store."""
        return str(self.folder / "store")

    def fill(self, store: str | None = None, *, limit: int | None = None, cut: str = "2") -> Any:
        """Precompute what a training and its evaluation read, or `limit` records of each."""
        settings = PrecomputeSettings((cut,), "float32", **self.precomputed)
        reports = [
            precompute(replace(one, limit=limit), store or self.store, self.model, settings)
            for one in (self.train, self.test)
        ]
        return reports[-1]

    def fit(self, output: str, settings: TrainingSettings = SETTINGS, **changes: Any) -> Finetuned:
        """Fine-tune from the store, evaluating on the test data; with a `cut` alone, from the inputs."""
        store = None if "cut" in changes else self.store
        job = Job(self.train, str(self.folder / output), store, self.test, task=self.name, tensorboard=False)
        model = self.model if store is None else replace(self.model, name=self.model.name)
        return finetune(replace(job, model_named=True, **changes), model, replace(settings, task=self.settings))

    def score(
        self, run: str, store: str | None = None, *, test: CorpusSettings | None = None, **more: Any
    ) -> tuple[Predicted, list[dict[str, Any]]]:
        """A prediction, and its records."""
        output = self.folder / "predictions.jsonl"
        settings = PredictSettings(**more)
        report = predict(test or self.test, str(self.folder / run), store, str(output), ModelSettings(), settings)
        return report, [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]

    def losses(self, output: str) -> list[float]:
        """The loss of every step."""
        lines = (self.folder / output / "metrics.jsonl").read_text().splitlines()
        return [record["loss"] for record in map(json.loads, lines) if "loss" in record]
