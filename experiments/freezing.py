"""Processor seconds of each epoch with --freeze: in full, in place, and with the rows kept. The text column is found.

python experiments/freezing.py train.jsonl --limit 128 --rule bound
"""

import argparse
import json
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import recycle_cli.training.loop as loop
from recycle_cli.settings import CorpusSettings, FreezeSettings, Job, ModelSettings, TrainingSettings
from recycle_cli.training import Trainer
from recycle_cli.verbs.finetune import finetune


class ProcessorClock(loop._Clock):
    """The loop's clock, which counts the seconds of the processor too."""

    seconds = 0.0

    def _start(self) -> None:
        super()._start()
        self._begun = time.process_time()

    def stop(self) -> None:
        super().stop()
        ProcessorClock.seconds += time.process_time() - self._begun


def trained(corpus: str, limit: int, settings: TrainingSettings, folder: Path) -> dict[str, Any]:
    """Train; the processor seconds of each epoch, with its cuts and the seconds of its phases."""
    epochs: list[float] = []
    end_epoch = Trainer.end_epoch

    def ended(trainer: Trainer) -> None:
        epochs.append(ProcessorClock.seconds - sum(epochs))
        end_epoch(trainer)

    ProcessorClock.seconds = 0.0
    Trainer.end_epoch = ended  # type: ignore[method-assign]
    try:
        job = Job(CorpusSettings((corpus,), limit=limit), str(folder), cut="0", tensorboard=False)
        report = finetune(job, ModelSettings(), settings)
    finally:
        Trainer.end_epoch = end_epoch  # type: ignore[method-assign]
    told = [{name: one.get(name) for name in ("read_cut", "frozen_cut", "phases")} for one in report.epochs]
    return {"processor_seconds": epochs, "load": os.getloadavg()[0], "epochs": told}


def main() -> None:
    """Print one JSON object a training."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus")
    parser.add_argument("--limit", type=int, default=128)
    parser.add_argument("--rule", default="bound")
    parser.add_argument("--epochs", type=int, default=4)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    loop._Clock = ProcessorClock  # type: ignore[misc]
    settings = TrainingSettings(epochs=asked.epochs, batch_size=16)
    ways = {
        "full": FreezeSettings(),
        "in_place": FreezeSettings(asked.rule, cache="never"),
        "kept": FreezeSettings(asked.rule, cache="always"),
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, about in ways.items():
            found = trained(asked.corpus, asked.limit, replace(settings, freezing=about), Path(folder, name))
            print(json.dumps({"name": name, **found}), flush=True)


if __name__ == "__main__":
    main()
