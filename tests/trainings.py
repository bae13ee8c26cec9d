"""Trainings in tests: their losses read again, one that is stopped and resumed, and a task tried on small data: a
store, training from it and in place, and predicting."""

import itertools
import json
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recycle_cli.errors import Interrupted, MismatchError
from recycle_cli.settings import (
    CorpusSettings,
    ModelSettings,
    PrecomputeSettings,
    PredictSettings,
    TaskSettings,
    TrainingSettings,
)
from recycle_cli.training import Trainer
from recycle_cli.verbs.finetune import Finetuned, Job, finetune
from recycle_cli.verbs.precompute import Precomputed, precompute
from recycle_cli.verbs.predict import Predicted, predict

SETTINGS = TrainingSettings(epochs=2, batch_size=8, learning_rate=2e-3)


def log_of(run: Path | str) -> list[dict[str, Any]]:
    """What a training has logged."""
    return [json.loads(line) for line in Path(run, "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def losses(run: Path | str) -> list[float]:
    """The loss of every step."""
    return [record["loss"] for record in log_of(run) if "loss" in record]


@contextmanager
def stopped_when(saved: Callable[[Trainer], bool]) -> Iterator[None]:
    """Inside the block a training must be stopped, as by Ctrl-C, right behind a checkpoint: the first `saved` says."""
    save = Trainer.save

    def stop(trainer: Trainer) -> None:
        save(trainer)
        if saved(trainer):
            raise Interrupted

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "save", stop)
        with pytest.raises(Interrupted):
            yield


def stopped_after(saves: int = 1) -> AbstractContextManager[None]:
    """The same behind so many checkpoints, of all heads together."""
    count = itertools.count(1)
    return stopped_when(lambda trainer: next(count) == saves)


@dataclass(frozen=True)
class Tried:
    """The commands with the names of one task, its data and its model filled in.

    precomputed  settings of `precompute` beside the cut and the dtype
    usual        how it trains, unless a training is given other settings
    """

    name: str
    settings: TaskSettings
    folder: Path
    model: ModelSettings
    train: CorpusSettings
    test: CorpusSettings
    precomputed: dict[str, Any] = field(default_factory=dict)
    usual: TrainingSettings = SETTINGS

    @property
    def store(self) -> str:
        """The path of its store."""
        return str(self.folder / "store")

    def precompute(self, store: str, corpora: Sequence[CorpusSettings], cut: str = "2") -> list[Precomputed]:
        """Precompute each of the corpora, at a cut."""
        settings = PrecomputeSettings((cut,), "float32", **self.precomputed)
        return [precompute(one, store, self.model, settings) for one in corpora]

    def fill(self, store: str | None = None, *, limit: int | None = None, cut: str = "2") -> Precomputed:
        """Precompute what a training and its evaluation read, or `limit` records of each."""
        corpora = [replace(one, limit=limit) for one in (self.train, self.test)]
        return self.precompute(store or self.store, corpora, cut)[-1]

    def fit(self, output: str, settings: TrainingSettings | None = None, **changes: Any) -> Finetuned:
        """Fine-tune from the store, which names the model, evaluating on the test data; with a `cut`, from the inputs
        of the model."""
        inputs = "cut" in changes
        store, model = (None, self.model) if inputs else (self.store, ModelSettings())
        job = Job(self.train, str(self.folder / output), store, self.test, task=self.name, tensorboard=False)
        return finetune(
            replace(job, model_named=inputs, **changes), model, replace(settings or self.usual, task=self.settings)
        )

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
        return losses(self.folder / output)


_reports: dict[Path, Finetuned] = {}


def trained(tried: Tried) -> Finetuned:
    """The report of the training from the store whose RUN is `stored`: the first test that asks for it trains."""
    if tried.folder not in _reports:
        _reports[tried.folder] = tried.fit("stored")
    return _reports[tried.folder]


def learns_as_in_place(tried: Tried, *, rtol: float = 1e-5, atol: float = 1e-5) -> tuple[Finetuned, Finetuned]:
    """Train from the store (`stored`) and from the inputs (`inplace`): every step must have the same loss, and not all
    of them one. Returns both reports."""
    stored, inplace = trained(tried), tried.fit("inplace", cut="2")
    np.testing.assert_allclose(tried.losses("stored"), tried.losses("inplace"), rtol=rtol, atol=atol)
    assert len(set(tried.losses("stored"))) > 1
    return stored, inplace


def resumes_exactly(tried: Tried, *, saves: int = 1) -> None:
    """A training that is stopped and resumed must be the undisturbed one, whose RUN is `stored`."""
    untouched = trained(tried)
    with stopped_after(saves):
        tried.fit("resumed")
    resumed = tried.fit("resumed", resume=True)
    assert tried.losses("resumed") == tried.losses("stored")
    assert resumed.metrics == untouched.metrics


def fill_as_told(recycle: Any, refused: Any, source: Path | str, store: str) -> None:
    """Run the precompute that a refusal names, over a source and into a store of one's own."""
    command = re.search("`recycle precompute CORPUS STORE ([^`]*)`", str(refused.value)).group(1)
    assert recycle("precompute", source, store, *shlex.split(command)).code == 0


def scored_as_told(tried: Tried, recycle: Any, store: str) -> tuple[Predicted, list[dict[str, Any]]]:
    """The RUN `run` scored from a store that is filled as the refusal of one of another cut tells."""
    other = f"{store}-other"
    tried.precompute(other, [tried.test], "1")
    with pytest.raises(MismatchError, match=r"holds cut 1 of .*; this RUN needs cut ") as refused:
        tried.score("run", other)
    fill_as_told(recycle, refused, *tried.test.source, store)
    return tried.score("run", store)
