"""What a training and a prediction leave, read again."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from recycle_cli.settings import CorpusSettings, ModelSettings, PredictSettings
from recycle_cli.verbs.predict import Predicted, predict
from tests.trainings import log_of


def rrps(output: Path) -> list[float]:
    """The R-precision of every evaluation."""
    return [line["evaluation"]["rrp"] for line in log_of(output) if "evaluation" in line]


def vectors(path: Path) -> np.ndarray:
    """The predicted embeddings."""
    return np.array(pq.read_table(path)["embedding"].to_pylist())


def score(data: CorpusSettings, run: Path, output: Path, store: str | None = None) -> Predicted:
    """Predict with a RUN on the CPU."""
    return predict(data, str(run), store, str(output), ModelSettings(device="cpu"), PredictSettings())
