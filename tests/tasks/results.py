"""What a training and a prediction leave, read again."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from recycle_cli.settings import CorpusSettings, ModelSettings, PredictSettings
from recycle_cli.verbs.predict import Predicted, predict


def losses(output: Path) -> list[float]:
    """The loss of every step."""
    return [line["loss"] for line in _log(output) if "loss" in line]


def rrps(output: Path) -> list[float]:
    """The R-precision of every evaluation."""
    return [line["evaluation"]["rrp"] for line in _log(output) if "evaluation" in line]


def _log(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def vectors(path: Path) -> np.ndarray:
    """The predicted embeddings."""
    return np.array(pq.read_table(path)["embedding"].to_pylist())


def score(data: CorpusSettings, run: Path, output: Path, store: str | None = None) -> Predicted:
    """Predict with a RUN on the CPU."""
    return predict(data, str(run), store, str(output), ModelSettings(device="cpu"), PredictSettings())
