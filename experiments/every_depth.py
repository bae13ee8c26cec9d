"""What an epoch of a ladder costs beside one of the 50% head and one of full fine-tuning, on the same texts.

    python experiments/every_depth.py TRAIN --limit 640 --model sentence-transformers/all-MiniLM-L6-v2 --max-length 256

The three train by the package's own loop, in turns, `--repetitions` times; the store is made before. Processor seconds
of the loop, reading included: on a busy machine only these tell. Prints the medians, what they are to full fine-tuning,
and what the store cost.
"""

import argparse
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from unittest.mock import patch

from recycle_cli.settings import (
    ClassificationSettings,
    CorpusSettings,
    HeadLayerSettings,
    Job,
    LadderSettings,
    ModelSettings,
    PrecomputeSettings,
    TrainingSettings,
)
from recycle_cli.training import loop
from recycle_cli.verbs.finetune import finetune
from recycle_cli.verbs.precompute import precompute

WAYS = {"full fine-tuning": "0", "the blocks after 50%": "50%", "ladder": "every:2"}


def epoch(options: argparse.Namespace, way: str, folder: Path, store: str, number: int) -> float:
    """Processor seconds of an epoch."""
    kind, inputs = "ladder" if way == "ladder" else "own", way == "full fine-tuning"
    sizes = LadderSettings(options.width, options.blocks)
    task = ClassificationSettings(
        layers=HeadLayerSettings(kind, ladder=sizes if kind == "ladder" else LadderSettings())
    )
    job = Job(
        CorpusSettings((options.corpus,), limit=options.limit),
        str(folder / f"{number}-{way}"),
        store=None if inputs else store,
        cut=WAYS[way],
        model_named=inputs,
        tensorboard=False,
    )
    model = ModelSettings(options.model, max_length=options.max_length) if inputs else ModelSettings()
    with patch.object(loop, "time", SimpleNamespace(perf_counter=time.process_time)):
        return finetune(job, model, TrainingSettings(epochs=1, parity_check=False, task=task)).train_seconds


def main() -> None:
    """Fill a store, train in turns, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus")
    parser.add_argument("--model", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--limit", type=int, default=640)
    parser.add_argument("--width", type=int)
    parser.add_argument("--blocks", type=int)
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    with TemporaryDirectory() as place:
        folder = Path(place)
        store, since = str(folder / "acts.zarr"), time.process_time()
        made = precompute(
            CorpusSettings((options.corpus,), limit=options.limit),
            store,
            ModelSettings(options.model, max_length=options.max_length),
            PrecomputeSettings(("every:2", "50%")),
        )
        filling = time.process_time() - since
        found: dict[str, list[float]] = {way: [] for way in WAYS}
        for number in range(options.repetitions):
            for way in WAYS:
                found[way].append(epoch(options, way, folder, store, number))
    full = found["full fine-tuning"]
    print(f"{'processor seconds':24}{'median':>10}{'full = 1':>10}")
    for way, seconds in found.items():
        print(f"{way:24}{median(seconds):10.1f}{median(map(float.__truediv__, seconds, full)):10.3f}")
    print(
        f"filling the store at {', '.join(made.cuts)}: {filling:.1f} s, {made.bytes / made.samples / 1e3:.0f} kB a text"
    )


if __name__ == "__main__":
    main()
