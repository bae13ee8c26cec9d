"""What people use instead: the Trainer of transformers, whole, with frozen layers, and on rows kept by `datasets`."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import datasets
import numpy as np
import torch
import transformers
from torch.nn.utils.rnn import pad_sequence

from recycle_cli.batches import Indices
from recycle_cli.bench.epoch import slice_for, training
from recycle_cli.bench.subject import Subject, discard
from recycle_cli.bench.timing import Run, Runner, synchronize
from recycle_cli.devices import to_device
from recycle_cli.models import SplitModel
from recycle_cli.models.sources import quiet
from recycle_cli.tasks import text_classification as task


def runners(subject: Subject, cut: str) -> Mapping[str, Runner]:
    """The three ways at one cut: padding to the longest of a batch, random order, everything else by default."""
    full, frozen, rows = (subject.load() for _ in range(3))
    subject.split(("0",), full)
    _freeze(subject.split((cut,), frozen), cut)
    halves = subject.split((cut,), rows)
    halves.freeze(cut)
    texts = _texts(subject)
    pad = transformers.DataCollatorWithPadding(full.tokenizer)
    kept = Kept(subject, halves, cut)
    return {
        "finetune.trainer_full": partial(_train, subject, full.model, texts, pad),
        "finetune.trainer_frozen": partial(_train, subject, frozen.model, texts, pad),
        "finetune.map_trainer": partial(_train, subject, HeadOnRows(halves, cut), kept.rows(), pad_rows),
    }


def _freeze(halves: SplitModel, cut: str) -> None:
    for _, parameter in halves.trunk_parameters(cut):
        parameter.requires_grad_(False)


def _texts(subject: Subject) -> datasets.Dataset:
    """All records, tokenised beforehand."""
    columns: dict[str, list[Any]] = {
        name: [inputs[name].tolist() for inputs in subject.raw.prepared] for name in subject.raw.prepared[0]
    }
    columns["attention_mask"] = [[1] * int(length) for length in subject.raw.lengths]
    return datasets.Dataset.from_dict({**columns, "labels": subject.data.targets.tolist()})


@dataclass(frozen=True)
class Kept:
    """Rows of the trunk kept by `datasets.map`, as its documentation keeps the features of a model."""

    subject: Subject
    halves: SplitModel
    cut: str

    def rows(self) -> datasets.Dataset:
        """The rows of those records that a repetition trains on, in float32, without padding."""
        subject = self.subject
        wanted = np.unique(np.concatenate([slice_for(subject, at) for at in range(-1, subject.settings.repetitions)]))
        source = datasets.Dataset.from_dict({"place": wanted.tolist()})
        shape = (None, *self.halves.row_shape)
        features = datasets.Features(
            {
                "place": datasets.Value("int64"),
                "labels": datasets.Value("int64"),
                "rows": datasets.Array2D(shape, "float32"),
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
        prepared = [self.subject.raw.prepared[place] for place in places]
        inputs = to_device(self.halves.collate(prepared), self.subject.device)
        rows = self.halves.trunk(inputs)[self.cut].float().cpu().numpy()
        lengths = self.subject.raw.lengths[places]
        return {
            "rows": [own[:length] for own, length in zip(rows, lengths, strict=True)],
            "labels": self.subject.data.targets[places],
        }


class HeadOnRows(torch.nn.Module):
    """The head as the Trainer wants a model: from rows and labels to a loss."""

    def __init__(self, halves: SplitModel, cut: str) -> None:
        super().__init__()
        self.model = halves.model
        self._head = halves.head_from(cut)

    def forward(self, rows: torch.Tensor, lengths: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Loss and logits of a padded batch."""
        logits = self._head(rows, lengths)
        return {"loss": task.loss(logits, labels, None), "logits": logits}


def pad_rows(records: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """A batch padded to its longest sample."""
    rows = [record["rows"] for record in records]
    return {
        "rows": pad_sequence(rows, batch_first=True),
        "lengths": torch.tensor([len(own) for own in rows]),
        "labels": torch.stack([record["labels"] for record in records]),
    }


class _Stopwatch(transformers.TrainerCallback):
    """Seconds of the training loop alone, without the Trainer's own preparations."""

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
        # It would print its last log line on stdout, which carries results alone.
        trainer.remove_callback(transformers.trainer_callback.PrinterCallback)
        trainer.train()
    discard(folder)
    return Run(watch.seconds, len(members), steps=-(-len(members) // subject.settings.batch_size))


def _places(data: datasets.Dataset, members: Indices) -> Indices:
    """Where the samples are in a dataset that may hold only some of them."""
    if "place" not in data.column_names:
        return members
    return np.searchsorted(data.with_format("numpy")["place"][:], members)


def _arguments(subject: Subject, folder: str) -> transformers.TrainingArguments:
    settings, precision = training(subject), subject.model.precision
    return transformers.TrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=settings.batch_size,
        num_train_epochs=1,
        learning_rate=settings.learning_rate,
        bf16=precision == "bfloat16",
        fp16=precision == "float16",
        use_cpu=subject.device.type == "cpu",
        dataloader_pin_memory=subject.device.type == "cuda",
        seed=settings.seed,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
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
