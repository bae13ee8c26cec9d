"""What an epoch of a ladder costs beside one of the 50% head and one of full fine-tuning, on the same batches.

    python experiments/every_depth.py TRAIN --limit 640 --model sentence-transformers/all-MiniLM-L6-v2 --max-length 256

The three train by the package's own loop, in turns, `--repetitions` times; the store is made before. Processor seconds
of the loop, reading included: on a busy machine only these tell. Prints the medians, what they are to full fine-tuning,
and what the store cost.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np

from recycle_cli.batches import RowSource, source_at
from recycle_cli.bench.epoch import trainer_for
from recycle_cli.bench.subject import CLASSES, SILENT, WHOLE, Subject
from recycle_cli.models import SplitModel
from recycle_cli.models.ladder import Layout, new_ladder
from recycle_cli.settings import BenchSettings, CorpusSettings, LadderSettings, ModelSettings
from recycle_cli.store import Store
from recycle_cli.training import Destination, Head, LadderHead, loop, train
from recycle_cli.training.states_head import row_shapes

Way = tuple[Callable[[], Head], RowSource]
"""Makes a new head, and reads what it learns from."""


def ways(subject: Subject, options: argparse.Namespace) -> tuple[dict[str, Way], Store, float]:
    """The three ways to train, the store that two of them read, and the processor seconds of filling it."""
    every, after = subject.split(("every:2", "50%")), subject.split(("50%",))
    half = after.cuts[0]
    after.freeze(half)
    cuts = every.cuts if options.cuts is None else options.cuts.split(",")
    since = time.process_time()
    store, _ = subject.filled(subject.scratch / "all.zarr", subject.records().samples(), every)
    filling = time.process_time() - since
    positions = store.lookup(subject.data.keys, subject.data.digests)
    whole = subject.whole()
    layout = Layout(row_shapes(every, cuts, subject.data.samples[:1]))
    sizes, layer = LadderSettings(options.width, options.blocks), subject.task.layer(CLASSES)

    def head(halves: SplitModel, cut: str, source: RowSource) -> Callable[[], Head]:
        return lambda: Head(halves, cut, source.cuts, dict(halves.head_parameters(cut)))

    inputs = subject.inputs(whole, np.arange(len(subject.data)))
    rows, states = (source_at(store, each, [positions], None) for each in ((half,), tuple(cuts)))
    found: dict[str, Way] = {
        "full fine-tuning": (head(whole, WHOLE, inputs), inputs),
        f"the blocks after {half}": (head(after, half, rows), rows),
        f"a ladder over {', '.join(cuts)}": (
            lambda: LadderHead(every, ",".join(cuts), cuts, new_ladder(layer, layout, sizes, 0), layout),
            states,
        ),
    }
    return found, store, filling


def epoch(subject: Subject, way: Way) -> float:
    """Processor seconds of an epoch."""
    trainer = trainer_for(subject, way[0](), Destination(subject.folder()), subject.data)
    trainer.head.settle(way[1], trainer.sampler)
    with patch.object(loop, "time", SimpleNamespace(perf_counter=time.process_time)):
        train([trainer], way[1], None, SILENT)
    return trainer.state.epoch_seconds[0]


def main() -> None:
    """Fill a store, train in turns, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus")
    parser.add_argument("--model", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--limit", type=int, default=640)
    parser.add_argument("--cuts", help="that the ladder reads, such as 0,2,4,6; by default every second and 50%%")
    parser.add_argument("--width", type=int)
    parser.add_argument("--blocks", type=int)
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    with TemporaryDirectory() as place:
        corpus = CorpusSettings((options.corpus,), limit=options.limit)
        model = ModelSettings(options.model, max_length=options.max_length)
        subject = Subject(corpus, model, BenchSettings(verbs=(), cuts=("50%",)), Path(place))
        each, store, filling = ways(subject, options)
        found: dict[str, list[float]] = {name: [] for name in each}
        for _ in range(options.repetitions):
            for name, way in each.items():
                found[name].append(epoch(subject, way))
        full = next(iter(found.values()))
        print(f"{'processor seconds':32}{'median':>10}{'full = 1':>10}")
        for name, seconds in found.items():
            print(f"{name:32}{median(seconds):10.1f}{median(map(float.__truediv__, seconds, full)):10.3f}")
        size = store.bytes / len(store) / 1e3
        print(f"filling a store at {', '.join(store.recipe.cuts)}: {filling:.1f} s, {size:.0f} kB a text")


if __name__ == "__main__":
    main()
