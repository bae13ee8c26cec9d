"""Baselines with transformers' Trainer: the whole model, with frozen layers, and on rows that `datasets` keeps."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import datasets
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows it by
import transformers
from torch.nn.utils.rnn import pad_sequence

from recycle_cli.batches import Indices
from recycle_cli.bench.epoch import slice_for, training
from recycle_cli.bench.subject import WHOLE, Subject, discard
from recycle_cli.bench.timing import Run, Runner, synchronize
from recycle_cli.models import Loaded, SplitModel
from recycle_cli.models.hub import quiet
from recycle_cli.runtime.devices import to_device


def runners(subject: Subject, cut: str) -> Mapping[str, Runner]:
    """Runners of the three baselines at one cut: batches padded to their longest, random order, other defaults."""
    full, frozen = (_whole(subject, where) for where in (WHOLE, cut))
    halves = subject.split((cut,))
    halves.freeze(cut)
    kept = Kept(subject, halves, cut)
    return {
        "finetune.trainer_full": partial(_train, subject, *full),
        "finetune.trainer_frozen": partial(_train, subject, *frozen),
        "finetune.map_trainer": partial(_train, subject, HeadOnRows(halves, cut), kept.rows(), pad_rows),
    }


def _whole(subject: Subject, cut: str) -> tuple[torch.nn.Module, datasets.Dataset, Any]:
    """The whole model with everything before the cut frozen, the records, and the collate function."""
    network = subject.load()
    halves = subject.whole(network) if cut == WHOLE else subject.split((cut,), network)
    for _, parameter in halves.trunk_parameters(cut):
        parameter.requires_grad_(False)
    if isinstance(network.loaded, Loaded):
        pad = transformers.DataCollatorWithPadding(network.loaded.tokenizer)
        return network.loaded.model, _texts(subject), pad
    return WholeOnPixels(halves), _places_of_images(subject), partial(decoded, subject, halves)


def _texts(subject: Subject) -> datasets.Dataset:
    """A dataset of all records, tokenised beforehand."""
    columns: dict[str, list[Any]] = {
        name: [inputs[name].tolist() for inputs in subject.raw.prepared] for name in subject.raw.prepared[0]
    }
    columns["attention_mask"] = [[1] * int(length) for length in subject.raw.lengths]
    return datasets.Dataset.from_dict({**columns, "labels": subject.data.targets.values.tolist()})


def _places_of_images(subject: Subject) -> datasets.Dataset:
    """A dataset of the images' numbers; each image is decoded when its batch is made."""
    count = len(subject.data)
    return datasets.Dataset.from_dict({"sample": list(range(count)), "labels": subject.data.targets.values.tolist()})


class WholeOnPixels(torch.nn.Module):
    """A whole image model as the Trainer needs it, from pixels and labels to a loss."""

    def __init__(self, halves: SplitModel) -> None:
        super().__init__()
        self.model = halves.model
        self._full = halves.full

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Compute loss and logits of a batch."""
        logits = self._full({"pixel_values": pixel_values})
        return {"loss": F.cross_entropy(logits.float(), labels), "logits": logits}


def decoded(subject: Subject, halves: SplitModel, records: Sequence[Mapping[str, int]]) -> dict[str, torch.Tensor]:
    """Decode a batch of images with threads while the Trainer waits, as its loader does without workers."""
    samples = [subject.data.samples[record["sample"]] for record in records]
    return {**halves.collate(halves.prepare(samples)), "labels": torch.tensor([record["labels"] for record in records])}


@dataclass(frozen=True)
class Kept:
    """Rows of the trunk kept by `datasets.map`, in the way its documentation keeps the features of a model."""

    subject: Subject
    halves: SplitModel
    cut: str

    def rows(self) -> datasets.Dataset:
        """A dataset of the rows of all records that some repetition trains on, in float32, without padding."""
        subject = self.subject
        wanted = np.unique(np.concatenate([slice_for(subject, at) for at in range(-1, subject.settings.repetitions)]))
        source = datasets.Dataset.from_dict({"place": wanted.tolist()})
        shape = (1 if subject.images else None, *self.halves.row_shape)
        of_rows = {2: datasets.Array2D, 3: datasets.Array3D, 4: datasets.Array4D}[len(shape)]
        features = datasets.Features(
            {
                "place": datasets.Value("int64"),
                "labels": datasets.Value("int64"),
                "rows": of_rows(shape, "float32"),
            }
        )
        with _silent():
            return source.map(
                self._features,
                batched=True,
                batch_size=subject.settings.batch_size,
                features=features,
                cache_file_name=str(subject.scratch / "rows.arrow"),
                new_fingerprint="recycle-bench-rows",
            ).with_format("torch")

    def _features(self, batch: Mapping[str, list[int]]) -> dict[str, Any]:
        places = batch["place"]
        subject = self.subject
        prepared = (
            self.halves.prepare([subject.data.samples[place] for place in places])
            if subject.images
            else [subject.raw.prepared[place] for place in places]
        )
        inputs = to_device(self.halves.collate(prepared), subject.device)
        rows = self.halves.trunk(inputs)[self.cut].float().cpu().numpy()
        lengths = subject.lengths[places]
        return {
            "rows": [own[:length] for own, length in zip(rows, lengths, strict=True)],
            "labels": subject.data.targets.values[places],
        }


class HeadOnRows(torch.nn.Module):
    """The head as the Trainer needs a model, from rows and labels to a loss."""

    def __init__(self, halves: SplitModel, cut: str) -> None:
        super().__init__()
        self.model = halves.model
        self._head = halves.head_from(cut)

    def forward(self, rows: torch.Tensor, lengths: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Compute loss and logits of a padded batch."""
        logits = self._head(rows, lengths)
        return {"loss": F.cross_entropy(logits.float(), labels), "logits": logits}


def pad_rows(records: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Collate records into a batch padded to the longest."""
    rows = [record["rows"] for record in records]
    return {
        "rows": pad_sequence(rows, batch_first=True),
        "lengths": torch.tensor([len(own) for own in rows]),
        "labels": torch.stack([record["labels"] for record in records]),
    }


class _Stopwatch(transformers.TrainerCallback):
    """Measures the seconds of the training loop, without the Trainer's preparations."""

    def __init__(self, device: torch.device) -> None:
        self.seconds = 0.0
        self._device = device

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        synchronize(self._device)
        self.seconds = -time.perf_counter()

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        synchronize(self._device)
        self.seconds += time.perf_counter()


def _train(subject: Subject, model: torch.nn.Module, data: datasets.Dataset, collate: Any, repetition: int) -> Run:
    members = slice_for(subject, repetition)
    folder, watch = subject.folder(), _Stopwatch(subject.device)
    with _silent():
        trainer = transformers.Trainer(
            model=model,
            args=_arguments(subject, str(folder)),
            train_dataset=data.select(_places(data, members)),
            data_collator=collate,
            callbacks=[watch],
        )
        # The callback would print to stdout, which is for results alone.
        trainer.remove_callback(transformers.trainer_callback.PrinterCallback)
        trainer.train()
    discard(folder)
    return Run(watch.seconds, len(members), steps=-(-len(members) // subject.settings.batch_size))


def _places(data: datasets.Dataset, members: Indices) -> Indices:
    """Places of the samples in a dataset that may hold only some of them."""
    if "place" not in data.column_names:
        return members
    return np.searchsorted(data.with_format("numpy")["place"][:], members)


def _arguments(subject: Subject, folder: str) -> transformers.TrainingArguments:
    settings, precision = training(subject), subject.model.precision
    return transformers.TrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=settings.batch_size,
        num_train_epochs=1,
        learning_rate=settings.highest_rate,
        bf16=precision == "bfloat16",
        fp16=precision == "float16",
        use_cpu=subject.device.type == "cpu",
        dataloader_pin_memory=subject.device.type == "cuda",
        seed=settings.seed,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        # Decoding needs the column that tells which image to decode. All columns of texts are the model's own.
        remove_unused_columns=not subject.images,
    )


@contextmanager
def _silent() -> Iterator[None]:
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        with quiet():
            yield
    finally:
        if shown:
            datasets.enable_progress_bars()
