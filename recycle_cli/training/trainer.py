"""One head in training: what its steps change, the targets it learns, and how far it is."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recycle_cli import runs
from recycle_cli.batches.inputs import logits_of, subset
from recycle_cli.batches.mixing import Mix
from recycle_cli.batches.stored import Batch, Indices, Order
from recycle_cli.errors import DataError
from recycle_cli.models import SplitModel
from recycle_cli.runs.log import Log, ignore
from recycle_cli.runtime.random_generators import Randomness
from recycle_cli.settings import TrainingSettings
from recycle_cli.tasks import LOSS, Classification, Task, chosen_metric, is_better
from recycle_cli.training.labelled import Labelled


def make_optimizer(weights: Mapping[str, torch.nn.Parameter], settings: TrainingSettings) -> torch.optim.AdamW:
    """AdamW; no decay on vectors (biases, norms), as is usual."""
    groups = [
        {"params": [w for w in weights.values() if w.dim() > 1], "weight_decay": settings.weight_decay},
        {"params": [w for w in weights.values() if w.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)


def order_of(task: Task, data: Labelled, settings: TrainingSettings) -> Order:
    """How a training draws its batches."""
    order = Order(settings.batch_size, settings.shuffle_seed)
    if not task.grouped:
        return order
    return replace(order, groups=data.targets, group_samples=settings.similarity.group_samples)


@dataclass
class Head:
    """All that a training step touches. `weights` are the head's, and `buffers` the statistics of its BatchNorm layers;
    nothing else ever changes. `evaluation`: what it is evaluated on, if at all. `name`: where it is one of several."""

    split: SplitModel
    cut: str
    weights: Mapping[str, torch.nn.Parameter]
    optimizer: torch.optim.AdamW
    scaler: torch.amp.GradScaler
    autocast: Callable[[], AbstractContextManager[object]]
    randomness: Randomness
    folder: Path
    settings: TrainingSettings
    identity: Mapping[str, Any]
    data: Labelled
    evaluation: Labelled | None = None
    log: Log = ignore
    buffers: Mapping[str, torch.Tensor] = field(default_factory=dict)
    state: runs.Progress = field(default_factory=runs.Progress)
    name: str = ""
    task: Task = Classification()  # noqa: RUF009 - it holds nothing

    def __post_init__(self) -> None:
        self._targets = torch.from_numpy(self.data.targets)
        every = self.data.labelled(np.arange(len(self.data)))
        self.samples = len(every)
        weights = None
        if self.settings.class_weights == "balanced":
            weights = self.task.class_weights(self.data.targets[every], len(self.data.names)).to(self.device)
        self._class_weights = weights
        self._loss, self._count = torch.zeros((), device=self.device), 0

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.randomness.device

    @property
    def metric(self) -> str:
        """What the best weights are chosen by."""
        return chosen_metric(self.task, self.settings.metric)

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """All that training changes: what a checkpoint must hold."""
        return {**self.weights, **self.buffers}

    @property
    def least(self) -> int:
        """The fewest samples that a batch may have: BatchNorm cannot train on a single one."""
        return 2 if self.buffers else 1

    @property
    def order(self) -> Order:
        """How its batches are drawn."""
        return replace(order_of(self.task, self.data, self.settings), least=self.least)

    @property
    def goes_on(self) -> bool:
        """Whether there is an epoch left to train, and patience for it."""
        patience = self.settings.patience
        return self.state.epoch < self.settings.epochs and not 0 < patience <= self.state.stale_evaluations

    def taught(self, members: Indices) -> Indices:
        """Those of a batch's members that it learns from: none where too few have a label."""
        known = self.data.labelled(members)
        return known if len(known) >= self.least else known[:0]

    def part(self, members: Indices, batch: Batch) -> tuple[Indices, Batch]:
        """Of a batch on the device those samples that it learns from."""
        known = self.taught(members)
        if len(known) in (0, len(members)):
            return known, batch
        return known, subset(batch, np.flatnonzero(np.isin(members, known)))

    def check_labels(self, batches: Sequence[Indices]) -> None:
        """Raise DataError where it would learn from none of these batches."""
        if not any(len(self.taught(members)) for members in batches):
            raise DataError(
                f"{self._named}no batch of the first epoch has {self.least} labelled samples ({self.samples} in all); "
                "label more records, or give a larger --batch-size"
            )

    def logits(self, batch: Batch) -> tuple[torch.Tensor, Mix | None]:
        """Outputs (B, width) of a training batch, mixed where the settings say so; the draws are its own."""
        settings = self.settings
        with self.randomness.drawing(), self.autocast():
            return logits_of(self.split, self.cut, batch, mixup=settings.mixup, cutmix=settings.cutmix)

    def loss(self, logits: torch.Tensor, members: Indices, mix: Mix | None) -> torch.Tensor:
        """The mean loss of a batch of these members."""
        wanted = self._targets[members]
        loss = self.task.loss(logits, wanted.to(self.device), self._class_weights)
        if mix is None:
            return loss
        others = wanted[mix.partners].to(self.device)
        return mix.share * loss + (1 - mix.share) * self.task.loss(logits, others, self._class_weights)

    def shares(self, batches: Sequence[Indices]) -> list[float]:
        """What each batch's mean loss counts in its step, so that a step's loss is the mean over its samples."""
        accumulation, targets = self.settings.accumulation, self.data.targets
        weights = None if self._class_weights is None else self._class_weights.cpu()
        sums = [float(self.task.sample_weights(targets[self.taught(members)], weights).sum()) for members in batches]
        steps = [sum(sums[at : at + accumulation]) for at in range(0, len(sums), accumulation)]
        return [own / (steps[place // accumulation] or 1.0) for place, own in enumerate(sums)]

    def clipped(self) -> float:
        """The norm of the gradient, which is clipped. Raises DataError where it is no number."""
        self.scaler.unscale_(self.optimizer)
        norm = float(torch.nn.utils.clip_grad_norm_(self.weights.values(), self.settings.max_grad_norm or math.inf))
        if not self.scaler.is_enabled() and not math.isfinite(norm):
            raise DataError(self._diverged("the gradient's norm", norm))
        return norm

    def count(self, loss: torch.Tensor, samples: int) -> None:
        """Add a batch's part to what the coming step will say of itself."""
        self._loss += loss.detach()
        self._count += samples

    def counted(self) -> tuple[float, int]:
        """The loss and the samples of the coming step; counts from zero again."""
        loss, samples = float(self._loss), self._count
        self._loss, self._count = torch.zeros((), device=self.device), 0
        return loss, samples

    def end_epoch(self) -> None:
        """On to the next epoch's first batch."""
        self.state.epoch_seconds.append(self.state.seconds)
        self.state.seconds, self.state.batch = 0.0, 0
        self.state.epoch += 1

    def note(self, record: Mapping[str, Any]) -> None:
        """Log a record."""
        self.log(record)
        self.state.lines += 1

    def judge(self, logits: torch.Tensor) -> None:
        """Metrics of the evaluation's logits; the weights are kept if they are the best so far."""
        assert self.evaluation is not None
        state, data = self.state, self.evaluation
        known = data.labelled(np.arange(len(data)))
        found = self.task.figures(logits[known], torch.from_numpy(data.targets[known]))
        what, value = (LOSS, found[LOSS]) if LOSS in found else ("outputs", float(logits.double().sum()))
        if not math.isfinite(value):
            raise DataError(self._diverged(f"the evaluation's {what}", value))
        self.note({"step": state.step, "epoch": state.epoch, "evaluation": found})
        if not is_better(self.metric, found, state.best):
            state.stale_evaluations += 1
            return
        state.best, state.stale_evaluations = found, 0
        state.best_epoch = state.epoch + (1 if state.batch else 0)
        runs.save_best(self.folder, self.tensors)

    def save(self) -> None:
        """Keep all that an exact resume needs."""
        runs.save_progress(
            self.folder, self.state, self.tensors, self.optimizer, self.scaler, self.randomness, self.identity
        )

    def load(self) -> None:
        """Go on where a checkpoint is, and drop the log lines of what will be done again."""
        self.state = runs.load_progress(
            self.folder, self.tensors, self.optimizer, self.scaler, self.randomness, self.identity
        )
        runs.keep_lines(self.folder, self.state.lines)

    @property
    def _named(self) -> str:
        return self.name and f"head {self.name!r}: "

    def _diverged(self, what: str, value: float) -> str:
        return (
            f"{self._named}{what} became {value}; lower --learning-rate (now "
            f"{self.settings.learning_rate:g}), or train with --precision float32"
        )
