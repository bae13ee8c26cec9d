"""What a store costs and keeps on CIFAR-10: transfer from five classes to the other five, and augmented views.

    python experiments/cifar10.py TRAIN.parquet TEST.parquet WORK_FOLDER --json results.json

The two files hold the columns `image` (bytes) and `label`. A ResNet-18 with torchvision's stem is trained from nothing
on five classes by full fine-tuning; that is the pretrained trunk. Then the other five classes are learnt: in full, from
the store at 50% (`layer2`), 75% (`layer3`) and head only (`avgpool`), and at 50% with the frozen trunk in the loop,
with all of the data and with half. Last, at 50%: stored views, MixUp and CutMix on stored rows, and augmentation in the
loop. All figures of a part are measured in one run on one machine; seconds are those of the training epochs, decoding
included.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

from recycle_cli.finetune import Job, finetune
from recycle_cli.precompute import precompute
from recycle_cli.reports import say
from recycle_cli.settings import (
    CorpusSettings,
    ImageSettings,
    ModelSettings,
    PrecomputeSettings,
    TrainingSettings,
    ViewSettings,
)

PRETRAINED = ("airplane", "bird", "deer", "frog", "ship")
TRANSFER = ("automobile", "cat", "dog", "horse", "truck")
AUGMENT = "random-crop,flip"
VIEWS = (1, 2, 4, 8)
CUTS = {"50%": "layer2", "75%": "layer3", "head only": "avgpool"}

Row = dict[str, Any]


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

    def __init__(self, train: Path, test: Path, work: Path, options: argparse.Namespace) -> None:
        self.work, self.options = work, options
        work.mkdir(parents=True, exist_ok=True)
        self.images = ImageSettings("none", resize=(options.side,), crop=(options.side,))
        self.settings = TrainingSettings(
            epochs=options.epochs, batch_size=64, learning_rate=1e-3, weight_decay=0.05, metric="accuracy", seed=1
        )
        each, half = options.each, options.each // 2
        self.first = slices(train, work / "first.parquet", PRETRAINED, options.pretrain_each)
        self.first_test = slices(test, work / "first-test.parquet", PRETRAINED, options.test_each)
        self.data = {"100%": slices(train, work / "all.parquet", TRANSFER, each)}
        self.data["50%"] = slices(train, work / "half.parquet", TRANSFER, half)
        self.test = slices(test, work / "test.parquet", TRANSFER, options.test_each)

    def pretrain(self) -> Row:
        """Full fine-tuning from nothing, augmented: the trunk of all that follows."""
        settings = replace(
            self.settings,
            epochs=self.options.pretrain_epochs,
            views=ViewSettings(self.options.pretrain_epochs, AUGMENT),
        )
        job = Job(
            self.first,
            str(self.work / "pretrained"),
            evaluation=self.first_test,
            task="image-classification",
            cut="0",
            model_named=True,
            overwrite=True,
            tensorboard=False,
        )
        found = finetune(job, ModelSettings("resnet18", images=self.images), settings)
        self.images = replace(self.images, weights=str(self.work / "pretrained" / "model.safetensors"))
        return {"samples": found.samples, "accuracy": found.metrics["accuracy"], "seconds": found.train_seconds}

    def store(self, name: str, cuts: tuple[str, ...], views: int = 0) -> Row:
        """A store of the whole of the transfer data and its test set."""
        path, model = str(self.work / name), ModelSettings("resnet18", images=self.images)
        settings = PrecomputeSettings(cuts, views=ViewSettings(views, AUGMENT))
        train = precompute(self.data["100%"], path, model, settings)
        precompute(self.test, path, model, replace(settings, views=ViewSettings()))
        return {"store": name, "seconds": train.seconds, "bytes": train.bytes, "samples": train.new_samples}

    def train(self, name: str, share: str, cut: str, store: str | None, **changes: Any) -> Row:
        """One training on the transfer data."""
        path = None if store is None else str(self.work / store)
        job = Job(
            self.data[share],
            str(self.work / "run"),
            store=path,
            evaluation=self.test,
            task="image-classification",
            cut=cut,
            model_named=True,
            overwrite=True,
            tensorboard=False,
        )
        found = finetune(job, ModelSettings("resnet18", images=self.images), replace(self.settings, **changes))
        row = {"name": name, "data": share, "accuracy": found.metrics["accuracy"], "seconds": found.train_seconds}
        say(json.dumps(row))
        return row

    def transfer(self) -> list[Row]:
        """Accuracy and seconds by depth of the cut, with all and with half of the data."""
        rows = []
        for share in self.data:
            rows.append(self.train("full", share, "0", None))
            rows.append(self.train("50%, trunk in the loop", share, "layer2", None))
            rows += [self.train(name, share, cut, "store") for name, cut in CUTS.items()]
        return rows

    def views(self) -> list[Row]:
        """What stored views keep of the gain of augmentation, at 50%."""
        rows = [self.train("no augmentation", "100%", "layer2", "views")]
        for count in VIEWS:
            rows.append(self.train(f"{count} views", "100%", "layer2", "views", views=ViewSettings(count, AUGMENT)))
        rows.append(self.train("MixUp on rows", "100%", "layer2", "views", mixup=0.2))
        rows.append(self.train("CutMix on rows", "100%", "layer2", "views", cutmix=1.0))
        online = ViewSettings(self.options.epochs, AUGMENT)
        rows.append(self.train("augmentation in the loop", "100%", "layer2", None, views=online))
        return rows


def main() -> None:
    """Run the parts asked for and write their rows as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--pretrain-each", type=int, default=5000)
    parser.add_argument("--pretrain-epochs", type=int, default=12)
    parser.add_argument("--each", type=int, default=5000)
    parser.add_argument("--test-each", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    run = Experiments(options.train, options.test, options.work, options)
    parts: dict[str, Callable[[], Any]] = {
        "pretraining": run.pretrain,
        "store": lambda: run.store("store", tuple(CUTS.values())),
        "transfer": run.transfer,
        "store_of_views": lambda: run.store("views", ("layer2",), max(VIEWS)),
        "views": run.views,
    }
    results: dict[str, Any] = {"options": {name: str(value) for name, value in vars(options).items()}}
    for name, part in parts.items():
        results[name] = part()
        say(f"{name}: {json.dumps(results[name])}")
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
