"""What a store costs and keeps on CIFAR-10: transfer from five classes to the other five, and augmented views.

    python experiments/cifar10.py TRAIN.parquet TEST.parquet WORK_FOLDER --json results.json

The two files hold the columns `image` (bytes) and `label`. A ResNet-18 with torchvision's stem is trained from nothing
on five classes by full fine-tuning; that is the pretrained trunk. Then the other five classes are learnt: in full, from
the store at 50% (`layer2`), 75% (`layer3`) and head only (`avgpool`), and at 50% with the frozen trunk in the loop,
with all of the data and with half. Last, at 50%: stored views, MixUp and CutMix on stored rows, and augmentation in the
loop. The part `similarity` learns an embedding of the other five in the same ways (skip-connection layer, triplet loss
with margin 0.5): retrieval R-precision over the test images, and `untrained` that of the pretrained trunk's pooled
features. The part `ladders` trains small networks on the outputs of the four stages, the part `pooled` heads on these
outputs pooled. The part `freezing` learns the other five classes by SGD with the first 0 to 6 of the eight blocks
frozen from the start, and with blocks that freeze while the others train, in place and with their rows kept; its
seconds, those of each phase too, are processor seconds.

Every training runs all of its epochs; the test images are seen once, after the last. A result is one row of the JSON
file, written as soon as it is there; the same command goes on after the rows that the file holds. `core_seconds` are
the processor time of one training, reading and model loading included: on a machine that others use as well it says
more than the time on the clock.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from pathlib import Path
from shutil import rmtree
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow.parquet as pq
import torch

import recycle_cli.training.loop as loop
import recycle_cli.training.phases as phases
from recycle_cli.batches import StoredRows, widened
from recycle_cli.corpus import Corpus
from recycle_cli.models import NamedModel
from recycle_cli.models.outputs import Outputs
from recycle_cli.reports import say
from recycle_cli.settings import (
    ClassificationSettings,
    CorpusSettings,
    FreezeSettings,
    HeadLayerSettings,
    ImageSettings,
    LadderSettings,
    ModelSettings,
    PooledSettings,
    PrecomputeSettings,
    PredictSettings,
    SimilaritySettings,
    TrainingSettings,
    ViewSettings,
)
from recycle_cli.store import Store
from recycle_cli.tasks import task_of
from recycle_cli.training import read_one
from recycle_cli.verbs.finetune import Job, finetune
from recycle_cli.verbs.precompute import precompute
from recycle_cli.verbs.predict import predict

PRETRAINED = ("airplane", "bird", "deer", "frog", "ship")
TRANSFER = ("automobile", "cat", "dog", "horse", "truck")
AUGMENT = "random-crop,flip"
VIEWS = (1, 2, 4, 8)
CUTS = {"50%": "layer2", "75%": "layer3", "head only": "avgpool"}
STORE, STORE_OF_VIEWS, STORE_OF_STATES = "store", "views", "states"
STATES = ("layer1", "layer2", "layer3", "layer4")
WIDTHS = (64, 128)
FROZEN = ("0", "layer1.0", "layer1", "layer2.0", "layer2", "layer3.0", "layer3")
"""The cuts behind 0 to 6 of the eight blocks of a ResNet-18; the stem freezes with the first."""
READINGS = ("frontier", "up-to")

Row = dict[str, Any]


class Results:
    """The rows by name, in a JSON file that is complete at any instant."""

    def __init__(self, path: Path, options: dict[str, Any]) -> None:
        self.path, self.rows = path, dict[str, Row]()
        self.options = {name: str(value) for name, value in options.items()}
        if path.exists():
            kept = json.loads(path.read_text(encoding="utf-8"))
            if kept["options"] != self.options:
                raise SystemExit(f"{path} holds results of other options ({kept['options']}); name another --json")
            self.rows = kept["rows"]

    def row(self, name: str, compute: Callable[[], Row]) -> None:
        """Compute a row unless it is there."""
        if name in self.rows:
            return
        self.rows[name] = compute()
        say(f"{name}: {json.dumps(self.rows[name])}")
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps({"options": self.options, "rows": self.rows}, indent=2) + "\n", encoding="utf-8")
        partial.replace(self.path)


def slices(source: Path, target: Path, classes: tuple[str, ...], each: int) -> CorpusSettings:
    """The first `each` images of each class, in the file's order, as a corpus of its own."""
    table = pq.read_table(source)
    left, places = dict.fromkeys(classes, each), []
    for place, label in enumerate(table["label"].to_pylist()):
        if left.get(label, 0):
            left[label] -= 1
            places.append(place)
    pq.write_table(table.take(places), target)
    return CorpusSettings((str(target),))


class Experiments:
    """The corpora, the pretrained trunk, and one method a table."""

    def __init__(self, results: Results, options: argparse.Namespace) -> None:
        self.results, self.options = results, options
        self.work: Path = options.work
        self.work.mkdir(parents=True, exist_ok=True)
        self.scratch = ImageSettings("none", resize=(options.side,), crop=(options.side,))
        pretrained = str(self.work / "pretrained" / "model.safetensors")
        self.model = ModelSettings("resnet18", images=replace(self.scratch, weights=pretrained))
        self.settings = TrainingSettings(
            epochs=options.epochs, batch_size=64, learning_rate=1e-3, weight_decay=0.05, seed=1
        )
        self.first = self._slices("first", PRETRAINED, options.pretrain_each)
        self.first_test = self._slices("first-test", PRETRAINED, options.test_each)
        self.data = {
            "100%": self._slices("all", TRANSFER, options.each),
            "50%": self._slices("half", TRANSFER, options.each // 2),
        }
        self.test = self._slices("test", TRANSFER, options.test_each)

    def pretrain(self) -> None:
        """Full fine-tuning from nothing, augmented: the trunk of all that follows."""
        settings = replace(
            self.settings,
            epochs=self.options.pretrain_epochs,
            views=ViewSettings(self.options.pretrain_epochs, AUGMENT),
        )
        job = Job(self.first, str(self.work / "pretrained"), task="image-classification", cut="0")
        model = ModelSettings("resnet18", images=self.scratch)
        self.results.row("pretraining", lambda: self._trained(job, model, settings, self.first_test))

    def store(self, name: str, cuts: tuple[str, ...], views: int = 0) -> None:
        """A store of the whole of the transfer data and its test set."""

        def fill() -> Row:
            path = str(self.work / name)
            settings = PrecomputeSettings(cuts, views=ViewSettings(views, AUGMENT) if views else ViewSettings())
            rmtree(path, ignore_errors=True)  # of a run that was stopped: what it holds would not be measured
            started = time.process_time()
            train = precompute(self.data["100%"], path, self.model, settings)
            seconds = time.process_time() - started
            precompute(self.test, path, self.model, replace(settings, views=ViewSettings()))
            return {"core_seconds": seconds, "bytes": train.bytes, "samples": train.new_samples}

        self.results.row(f"precompute {name}", fill)

    def classification(self) -> None:
        """Accuracy and seconds by depth of the cut, with all and with half of the data."""
        self.by_depth("classification")

    def similarity(self) -> None:
        """Retrieval R-precision and seconds by depth of the cut, beside that of the features as they are."""
        self.store(STORE, tuple(CUTS.values()))
        self.results.row("similarity: untrained", self._untrained)
        self.by_depth("similarity", "similarity", task=SimilaritySettings("triplet", margin=0.5))

    def by_depth(self, part: str, kind: str = "image-classification", **changes: Any) -> None:
        """In full, at 50% with the trunk in the loop, and at each cut from the store, with all and with half."""
        self.store(STORE, tuple(CUTS.values()))
        for share in self.data:
            self.train(f"{part} {share}: full", share, "0", None, kind, **changes)
            self.train(f"{part} {share}: 50%, trunk in the loop", share, "layer2", None, kind, **changes)
            for name, cut in CUTS.items():
                self.train(f"{part} {share}: {name}", share, cut, STORE, kind, **changes)

    def views(self) -> None:
        """What stored views keep of the gain of augmentation, at 50%."""
        self.store(STORE_OF_VIEWS, ("layer2",), max(VIEWS))
        self.train("views: none", "100%", "layer2", STORE_OF_VIEWS)
        for count in VIEWS:
            self.train(f"views: {count}", "100%", "layer2", STORE_OF_VIEWS, views=ViewSettings(count, AUGMENT))
        self.train("views: none, MixUp on rows", "100%", "layer2", STORE_OF_VIEWS, mixup=0.2)
        self.train("views: none, CutMix on rows", "100%", "layer2", STORE_OF_VIEWS, cutmix=1.0)
        online = ViewSettings(self.options.epochs, AUGMENT)
        self.train("views: augmentation in the loop", "100%", "layer2", None, views=online)

    def ladders(self) -> None:
        """Ladders of several widths over the outputs of the four stages, at their own learning rate."""
        self.store(STORE_OF_STATES, STATES)
        for width in WIDTHS:
            layers = HeadLayerSettings("ladder", ladder=LadderSettings(width=width))
            task = ClassificationSettings(layers=layers)
            name, cuts = f"ladder of width {width}", ",".join(STATES)
            self.train(name, "100%", cuts, STORE_OF_STATES, task=task, learning_rate=None, weight_decay=0.01)

    def pooled(self) -> None:
        """Pooled heads on all of the four stages: linear, which is solved, and with a hidden layer."""
        self.store(STORE_OF_STATES, STATES)
        kinds: tuple[tuple[str, int | None, Row], ...] = (
            ("linear", None, {"epochs": TrainingSettings().epochs}),
            ("256 hidden", 256, {}),
        )
        for name, hidden, changes in kinds:
            layers = HeadLayerSettings("pooled", pooled=PooledSettings(hidden=hidden))
            task = ClassificationSettings(layers=layers)
            own = {"task": task, "learning_rate": None, "weight_decay": 0.01, **changes}
            self.train(f"pooled, {name}", "100%", ",".join(STATES), STORE_OF_STATES, **own)

    def freezing(self) -> None:
        """Frozen from the start, and freezing by the norm of the gradients, in place and with rows kept."""
        processor = SimpleNamespace(perf_counter=time.process_time)
        with patch.object(loop, "time", processor), patch.object(phases, "time", processor):
            self._freezing()

    def _freezing(self) -> None:
        sgd = {
            "optimizer": "sgd",
            "learning_rate": self.options.freezing_rate,
            "weight_decay": 1e-4,
            "batch_size": 128,
            "seed": self.options.freezing_seed,
        }
        for frozen, cut in enumerate(FROZEN):
            self.train(f"freezing: {frozen} blocks from the start", "100%", cut, None, **sgd)
        for reading in READINGS:
            for cache in ("never", "always"):
                freezing = FreezeSettings("gradient-norm", reading=reading, cache=cache)
                self.train(f"freezing: {reading}, rows kept {cache}", "100%", "0", None, freezing=freezing, **sgd)

    def train(
        self,
        name: str,
        share: str,
        cut: str,
        store: str | None,
        kind: str = "image-classification",
        **changes: Any,
    ) -> None:
        """One training on the transfer data for a `--task` of this kind."""
        path = None if store is None else str(self.work / store)
        job = Job(self.data[share], str(self.work / "run"), store=path, task=kind, cut=cut)
        settings = replace(self.settings, **changes)
        self.results.row(name, lambda: self._trained(job, self.model, settings, self.test))

    def _trained(self, job: Job, model: ModelSettings, settings: TrainingSettings, test: CorpusSettings) -> Row:
        """Train, then predict the test images with the RUN."""
        started = time.process_time()
        done = finetune(replace(job, model_named=True, overwrite=True, tensorboard=False), model, settings)
        seconds = time.process_time() - started
        scored = predict(test, job.output, job.store, str(self.work / "test.jsonl"), ModelSettings(), PredictSettings())
        assert scored.metrics is not None
        return {
            "samples": done.samples,
            "epochs": len(done.epoch_seconds),
            **scored.metrics,
            "core_seconds": seconds,
            "clock_seconds": done.train_seconds,
            "phases": reduce(phases.added, (one["phases"] for one in done.epochs), {}),
            "cuts": [(one.get("read_cut"), one.get("frozen_cut")) for one in done.epochs],
            "epoch_seconds": done.epoch_seconds,
        }

    def _untrained(self) -> Row:
        """The test images' pooled features, compared as a trained embedding is."""
        task, store = task_of("similarity", "image"), Store.open(str(self.work / STORE))
        corpus = Corpus(self.test, form=task.form, read_label=task.read_label, labelled=task.needs_labels)
        data = read_one(corpus, task, NamedModel(self.model).preprocessor)
        every = np.arange(len(data))
        rows = StoredRows.of(store, CUTS["head only"], store.lookup(data.keys, data.digests))
        scores = task.scores()
        scores.add(every, Outputs(widened(rows.load(every)).flatten(1)))
        return {"samples": 0, "epochs": 0, **scores.figures(data.targets)}

    def _slices(self, name: str, classes: tuple[str, ...], each: int) -> CorpusSettings:
        source = self.options.test if "test" in name else self.options.train
        return slices(source, self.work / f"{name}.parquet", classes, each)


def main() -> None:
    """Run the parts asked for and write their rows as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--parts", default="classification,views", help="which tables, with commas between")
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--pretrain-each", type=int, default=5000)
    parser.add_argument("--pretrain-epochs", type=int, default=5)
    parser.add_argument("--each", type=int, default=1000)
    parser.add_argument("--test-each", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--freezing-rate", type=float, default=0.1)
    parser.add_argument("--freezing-seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    kept = {name: value for name, value in vars(options).items() if name not in ("json", "parts", "work")}
    run = Experiments(Results(options.json, kept), options)
    parts = {
        "classification": run.classification,
        "similarity": run.similarity,
        "views": run.views,
        "ladders": run.ladders,
        "pooled": run.pooled,
        "freezing": run.freezing,
    }
    run.pretrain()
    for name in options.parts.split(","):
        parts[name]()


if __name__ == "__main__":
    main()
