"""Trainings whose loss compares the samples of a batch, without the dropout that no option takes away."""

import sys
from pathlib import Path

from recycle_cli.settings import (
    CorpusSettings,
    EmbeddingSettings,
    ModelSettings,
    PairSettings,
    SampleSettings,
    SimilaritySettings,
    TrainingSettings,
)
from tests.trainings import Tried

EMBEDDING = EmbeddingSettings("linear", 8, 0.0, 0.0)
TASKS = {
    "triplet": ("similarity", SimilaritySettings(group_samples=2, embedding=EMBEDDING)),
    "contrastive": (
        "similarity",
        SimilaritySettings("supervised-contrastive", group_samples=2, embedding=EMBEDDING),
    ),
    "negatives": ("pair-similarity", PairSettings(embedding=EMBEDDING)),
}


def tried(folder: Path, name: str) -> Tried:
    """One of them, on the data and the model of a folder."""
    task, settings = TASKS[name]
    kind = "pairs" if task == "pair-similarity" else "texts"
    train, test = (CorpusSettings((str(folder / f"{kind}-{part}.csv"),)) for part in ("train", "test"))
    samples = {"samples": SampleSettings(task)} if kind == "pairs" else {}
    usual = TrainingSettings(epochs=2, batch_size=6, learning_rate=2e-4)
    model = ModelSettings(str(folder / "bert"), None, 16)
    return Tried(task, settings, folder, model, train, test, samples, usual)


if __name__ == "__main__":
    for one in TASKS:
        tried(Path(sys.argv[1]), one).fit(f"{one}-2", cut="2")
