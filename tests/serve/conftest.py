"""RUNs of several tasks on a tiny model, and a store of half of their records."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from recycle_cli.settings import (
    CorpusSettings,
    ModelSettings,
    PrecomputeSettings,
    SimilaritySettings,
    TrainingSettings,
)
from recycle_cli.verbs.finetune import Job, finetune
from recycle_cli.verbs.precompute import precompute
from tests.records import records, write_csv

pytest.importorskip("fastapi", reason="needs recycle-cli[serve]")
pytest.importorskip("uvicorn", reason="needs recycle-cli[serve]")
pytest.importorskip("httpx2")

HELD, OTHERS = records(24, seed=5), records(24, seed=6, longest=14)


@dataclass(frozen=True)
class Subject:
    """Folders of RUNs, the store that they read, which holds HELD and not OTHERS, and the model."""

    moods: str
    similar: str
    store: str
    model: str
    folder: Path


@pytest.fixture(scope="session")
def subject(tiny_bert, tmp_path_factory) -> Subject:
    """A classifier and an embedder, trained at block 2."""
    folder = tmp_path_factory.mktemp("serve")
    model = ModelSettings(str(tiny_bert), None, 16)
    train = CorpusSettings((str(write_csv(folder / "train.csv", records(50))),))
    held = CorpusSettings((str(write_csv(folder / "held.csv", HELD)),))
    write_csv(folder / "others.csv", OTHERS)
    settings = TrainingSettings(epochs=2, batch_size=10, learning_rate=5e-3)
    job = Job(train, str(folder / "moods"), cut="2", model_named=True, tensorboard=False)
    finetune(job, model, settings)
    similar = replace(job, output=str(folder / "similar"), task="similarity")
    finetune(similar, model, replace(settings, task=SimilaritySettings()))
    precompute(held, str(folder / "store"), model, PrecomputeSettings(("2",), "float32"))
    return Subject(str(folder / "moods"), str(folder / "similar"), str(folder / "store"), str(tiny_bert), folder)
