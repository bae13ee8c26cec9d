"""Small trainings whose layers freeze."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from recycle_cli.settings import CorpusSettings, FreezeSettings, ModelSettings, TrainingSettings
from recycle_cli.training import Trainer
from recycle_cli.verbs.finetune import Finetuned, Job, finetune
from tests.conftest import save_tiny, tiny_config
from tests.records import records, write_csv
from tests.trainings import losses

IN_PLACE = FreezeSettings("bound", cache="never")
SETTINGS = TrainingSettings(epochs=4, batch_size=8, learning_rate=1e-3)
STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


@dataclass(frozen=True)
class Tried:
    """A model and its data; `fit` trains from the inputs, or from a store."""

    folder: Path
    model: ModelSettings
    train: CorpusSettings
    test: CorpusSettings
    task: str = "text-classification"
    settings: TrainingSettings = SETTINGS

    def fit(self, name: str, about: FreezeSettings, **changes: Any) -> Finetuned:
        """Train with the options of freezing; `changes` to the job, or to the settings."""
        own = {key: changes.pop(key) for key in list(changes) if key in TrainingSettings.__dataclass_fields__}
        job = Job(self.train, str(self.folder / name), None, self.test, task=self.task, tensorboard=False)
        job = replace(job, **{"cut": None if "store" in changes else "0", "model_named": True, **changes})
        return finetune(job, self.model, replace(self.settings, freezing=about, **own))

    def losses(self, name: str) -> list[float]:
        """The loss of every step."""
        return losses(self.folder / name)


def tried_texts(folder: Path, config: Any) -> Tried:
    """Thirty texts, and ten to evaluate on, for a model of this config."""
    train, test = (CorpusSettings((str(write_csv(folder / f"{n}.csv", records(n, seed=n))),)) for n in (30, 10))
    return Tried(folder, ModelSettings(str(save_tiny(folder / "model", config, bare=True)), None, 12), train, test)


@pytest.fixture(scope="package")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Tried:
    """For a BERT of 3 blocks without dropout."""
    return tried_texts(tmp_path_factory.mktemp("texts"), tiny_config(num_hidden_layers=3, **STILL))


@pytest.fixture
def make_tried(tmp_path: Path) -> Callable[[Any], Tried]:
    """The same for another model."""
    return lambda config: tried_texts(tmp_path, config)


@pytest.fixture(scope="package")
def seen() -> list[dict[str, torch.Tensor]]:
    """The frozen weights after each epoch of the training in place."""
    return []


@pytest.fixture(scope="package")
def in_place(texts: Tried, seen: list[dict[str, torch.Tensor]]) -> Finetuned:
    """A training in place that is watched after each epoch: what is frozen has left the optimizer, with its moments and
    gradients, is no parameter of the head any more, and stays in eval."""
    decide = Trainer.decide

    def watched(trainer: Trainer, *, between_epochs: bool = False) -> None:
        decide(trainer, between_epochs=between_epochs)
        if not between_epochs:
            return
        held = {id(one) for group in trainer.optimizer.param_groups for one in group["params"]}
        frozen = {name for name, one in trainer.head.weights.items() if id(one) not in held}
        assert {id(one) for one in trainer.head.parameters()} == held
        assert {id(one) for one in trainer.optimizer.state} <= held
        assert all(trainer.head.weights[name].grad is None for name in frozen)
        trainer.head.train()
        for name, module in trainer.head.split.model.named_modules():
            own = [f"{name}.{inner}" for inner, _ in module.named_parameters()]
            if own and frozen.issuperset(own):
                assert not any(part.training for part in module.modules()), name
        seen.append({name: trainer.head.weights[name].detach().clone() for name in frozen})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "decide", watched)
        return texts.fit("in-place", IN_PLACE)
