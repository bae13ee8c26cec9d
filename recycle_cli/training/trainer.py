"""One head in training: what its steps change, the targets it learns, and how far it is."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from recycle_cli import runs
from recycle_cli.batches import Epoch, Indices, RowSource, Sampler, Tensors, places_in, subset
from recycle_cli.batches.mixing import Mix, mixed_batch
from recycle_cli.errors import DataError
from recycle_cli.models.outputs import Outputs
from recycle_cli.runs import Log, State, ignore
from recycle_cli.runtime.random_generators import Randomness
from recycle_cli.settings import TrainingSettings
from recycle_cli.tasks import LOSS, Task, chosen_metric
from recycle_cli.training.early_stopping import goes_on, improves
from recycle_cli.training.freezing.freezing import Freezing
from recycle_cli.training.head import Head
from recycle_cli.training.labelled_data import LabelledData
from recycle_cli.training.optimizer import divide_and_clip
from recycle_cli.training.parallel.parallel import Parallel
from recycle_cli.training.phases import Phases, added


@dataclass
class Trainer:
    """All that a training step touches. The flow stays in the loop; this is the state of one head.

    data        what it learns from; `evaluation`: what it is evaluated on, if at all
    randomness  the generators that its dropout and mixing draw from, apart from those of other heads
    folder      where its RUN is trained
    identity    all that must be the same for a resumed training to go on as if it had never stopped
    name        its name, if it is one of several heads
    judged      the metrics of the latest evaluation
    freezing    of layers that freeze while the others train; None if none does
    l2          the lambda that a head was solved with
    parallel    what other processes train with it, each on its share of every batch; None if it trains alone
    """

    head: Head
    task: Task
    data: LabelledData
    evaluation: LabelledData | None
    settings: TrainingSettings
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    autocast: Callable[[], AbstractContextManager[object]]
    randomness: Randomness
    folder: Path
    identity: Mapping[str, Any]
    log: Log = ignore
    name: str = ""
    state: State = field(default_factory=State)
    judged: Mapping[str, float] = field(default_factory=dict)
    freezing: Freezing | None = None
    l2: float | None = None
    parallel: Parallel | None = None

    def __post_init__(self) -> None:
        self.phases = Phases(self.device)
        labelled = self.data.labelled_samples
        self.samples = len(labelled)
        weights = self.task.weights(self.data.targets.take(labelled), self.data.names)
        self._class_weights = None if weights is None else weights.to(self.device)
        self._restart_counts()

    def _restart_counts(self) -> None:
        """Start counting the losses, their weight and the samples of the coming step from zero."""
        self._loss = torch.zeros((), device=self.device)
        self._weight = torch.zeros((), device=self.device)
        self._count = 0

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.randomness.device

    @property
    def metric(self) -> str:
        """The metric that chooses the best weights."""
        return chosen_metric(self.task, self.settings.metric)

    @property
    def writes(self) -> bool:
        """Whether this process writes the checkpoints, the log and the RUN."""
        return self.parallel is None or self.parallel.ranks.first

    @property
    def least(self) -> int:
        """The fewest samples that a batch may have: BatchNorm cannot train on a single one."""
        return 2 if self.head.statistics else 1

    @property
    def sampler(self) -> Sampler:
        """How its batches are drawn."""
        return self.task.sampler(self.data.targets, self.settings, self.least)

    @property
    def goes_on(self) -> bool:
        """False after the last epoch, or once patience ran out."""
        return goes_on(self.state, self.settings)

    def learnable(self, members: Indices) -> Indices:
        """The labelled members of a batch; none if there are fewer than `least`."""
        known = self.data.labelled(members)
        return known if len(known) >= self.least else known[:0]

    def check_labels(self, batches: Sequence[Indices]) -> None:
        """Raise DataError if it would learn from none of these batches."""
        if not any(len(self.learnable(members)) for members in batches):
            raise DataError(
                f"{self._named}no batch of the first epoch has {self.least} labelled samples ({self.samples} in all); "
                "label more records, or give a larger --batch-size"
            )

    def begin(self, steps: int, source: RowSource, evaluation: RowSource | None) -> None:
        """Start, or go on from what `load` has found, with so many optimizer steps an epoch."""
        if self.freezing is not None:
            self.freezing.begin(self.state, steps, [source] if evaluation is None else [source, evaluation])

    def moved(self, epoch: Epoch, *, evaluating: bool = False) -> Epoch:
        """The batches of an epoch of its data, or of those of its evaluation. If rows behind frozen layers are there,
        these are read in place of the source's."""
        if self.freezing is None:
            return epoch
        return self.freezing.moving.moved(epoch, int(evaluating), partial(self._read, evaluating=evaluating))

    def advanced(self, members: Indices, batch: Tensors, *, evaluating: bool = False) -> Tensors:
        """A batch that was read, as its head takes it: run through the layers that have frozen since it was stored."""
        if self.freezing is None:
            return batch
        return self.freezing.moving.advanced(int(evaluating), self._read(members, evaluating=evaluating), batch)

    def _read(self, members: Indices, *, evaluating: bool) -> Indices:
        """The samples of a batch that this process reads."""
        return members if self.parallel is None else self.parallel.read(members, evaluating=evaluating)

    def learn(self, members: Indices, batch: Tensors, *, last: bool = True) -> None:
        """Forward and backward on the labelled samples of a batch that is on the device. `last`: no other batch with
        labelled samples follows in the step."""
        known = self.learnable(members)
        if len(known) and self.parallel is not None:
            self.randomness.seed(self.parallel.seed(self.state.epoch, self.state.batch))
        self.state.batch += 1
        if not len(known):
            return
        with nullcontext() if self.parallel is None else self.parallel.sending(last=last):
            with self.phases.of("forward"):
                with self.randomness.drawing(), self.autocast():
                    outputs, mix = self._outputs(batch, members, known)
                loss, weight = self._loss_of(outputs, known, mix)
            with self.phases.of("backward"):
                self.scaler.scale(loss).backward()
        self._loss += loss.detach()
        self._weight += weight
        self._count += len(known)

    def _outputs(self, batch: Tensors, members: Indices, known: Indices) -> tuple[Outputs, Mix | None]:
        """The outputs of the labelled members of a batch, and how it was mixed."""
        if self.parallel is not None:
            return self.parallel.outputs(batch, members, known), None
        if len(known) < len(members):
            batch = subset(batch, places_in(members, known))
        batch, mix = self._mixed(batch)
        return self.head(batch), mix

    def evaluated(self, batch: Tensors, members: Indices) -> Outputs:
        """The outputs of a batch of the evaluation, in float32 on the CPU."""
        with self.autocast():
            if self.parallel is None:
                outputs: Outputs = self.head(batch)
            else:
                outputs = self.parallel.outputs(batch, members, members, evaluating=True)
        return outputs.cpu()

    def _mixed(self, batch: Tensors) -> tuple[Tensors, Mix | None]:
        """The batch with its rows mixed as the settings say."""
        if not (self.settings.mixup or self.settings.cutmix):
            return batch, None
        return mixed_batch(batch, mixup=self.settings.mixup, cutmix=self.settings.cutmix)

    def _loss_of(self, outputs: Outputs, members: Indices, mix: Mix | None) -> tuple[torch.Tensor, torch.Tensor]:
        """The losses of these members, summed, and their weight."""
        wanted = self.data.targets.take(members).tensor().to(self.device)
        loss, weight = self.task.loss(outputs, wanted, self._class_weights)
        if mix is None:
            return loss, weight
        other, its_weight = self.task.loss(outputs, wanted[mix.partners.to(self.device)], self._class_weights)
        return mix.share * loss + (1 - mix.share) * other, mix.share * weight + (1 - mix.share) * its_weight

    def step(self, rate: float) -> float | None:
        """Take and log an optimizer step; returns its loss. A step without labelled samples still counts, since heads
        that train together share the schedule; its loss is None."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate if self.freezing is None else rate * self.freezing.rate_share(group, self.state.step)
        self.state.step += 1
        loss, weight, samples = float(self._loss), float(self._weight), self._count
        self._restart_counts()
        if not samples or not weight:
            self.optimizer.zero_grad(set_to_none=True)
            return None
        self.state.seen += samples
        self.state.loss += loss
        self.state.weight += weight
        self.scaler.unscale_(self.optimizer)
        if self.freezing is not None:
            self.freezing.watch(weight, scaled=self.scaler.is_enabled())
        with self.phases.of("step"):
            norm = divide_and_clip(self.head.weights.values(), weight, self.settings.max_grad_norm)
            if not self.scaler.is_enabled() and not math.isfinite(norm):
                raise DataError(self._diverged("the gradient's norm", norm))
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.zero_grad(set_to_none=True)
        sent = {} if self.parallel is None else self.parallel.traffic.take()
        self.state.sent = added(self.state.sent, sent)
        self.note({**step_record(self.state, loss / weight, rate, norm, samples), **sent})
        return loss / weight

    def decide(self, *, between_epochs: bool = False) -> None:
        """Freeze layers if it is time for it, and log why; between epochs the cut may follow them."""
        if self.freezing is None:
            return
        line = (self.freezing.after_epoch if between_epochs else self.freezing.after_step)(self.state)
        if line is not None:
            self.note(line)
        if between_epochs:
            self.freezing.move(self.state)

    def end_epoch(self) -> None:
        """Tell the trackers the epoch's mean loss, and go on to the first batch of the next one."""
        state = self.state
        state.epoch, state.batch = state.epoch + 1, 0
        loss = state.loss / state.weight if state.weight else None
        self.log({"step": state.step, "epoch": state.epoch, "epoch_loss": loss})  # the lines of its steps tell it
        state.epochs.append(
            {
                "epoch": state.epoch,
                "step": state.step,
                "epoch_loss": loss,
                "seconds": state.seconds,
                "phases": added(state.phases, self.phases.take()),
                "metrics": None,
            }
        )
        if state.sent:
            state.epochs[-1]["sent"] = state.sent
        state.epoch_seconds.append(state.seconds)
        state.seconds = state.loss = state.weight = 0.0
        state.phases, state.sent = {}, {}

    def note(self, record: Mapping[str, Any]) -> None:
        """Log a record."""
        self.log(record)
        self.state.lines += 1

    def judge(self, figures: Mapping[str, float]) -> None:
        """Log the metrics of an evaluation; the weights are kept if they are the best so far."""
        if self.parallel is not None:
            figures = self.parallel.ranks.told(figures)
        if LOSS in figures and not math.isfinite(figures[LOSS]):
            raise DataError(self._diverged("the evaluation's loss", figures[LOSS]))
        self.note({"step": self.state.step, "epoch": self.state.current_epoch, "evaluation": dict(figures)})
        self.judged = figures
        if not self.state.batch:
            self.state.epochs[-1]["metrics"] = dict(figures)
        if improves(self.state, self.metric, figures) and self.writes:
            runs.save_best(self.folder, self.head.tensors, self.state.best_step)

    def whole_loss(self) -> Callable[[torch.Tensor], torch.Tensor]:
        """A function from the outputs (n, width) of all samples to the mean loss of those that have a label."""
        known = self.data.labelled_samples
        wanted = self.data.targets.take(known).tensor().to(self.device)
        places = None if len(known) == len(self.data) else torch.from_numpy(known).to(self.device)

        def loss(outputs: torch.Tensor) -> torch.Tensor:
            own = Outputs(outputs if places is None else outputs[places])
            total, weight = self.task.loss(own, wanted, self._class_weights)
            return total / weight

        return loss

    def figures_of(self, outputs: torch.Tensor) -> dict[str, float]:
        """The metrics of the outputs (m, width) of all samples of the evaluation."""
        assert self.evaluation is not None
        known, scores = self.evaluation.labelled_samples, self.task.scores()
        scores.add(known, Outputs(outputs[torch.from_numpy(known)].cpu()))
        return scores.figures(self.evaluation.targets.take(known))

    def end_solving(self, loss: float, seconds: float, figures: Mapping[str, float] | None) -> None:
        """Note that the head was solved, which counts as one step and one epoch: its weights are the best."""
        state = self.state
        state.step, state.seen, state.loss, state.weight, state.seconds = 1, self.samples, loss, 1.0, seconds
        if not math.isfinite(loss):
            raise DataError(f"{self._named}the loss became {loss}; check the numbers of the labels")
        self.note({"step": 1, "epoch": 1, "loss": loss, "samples": self.samples})
        self.end_epoch()
        if figures is not None:
            self.note({"step": 1, "epoch": 1, "evaluation": dict(figures)})
            state.epochs[-1]["metrics"] = dict(figures)
            improves(state, self.metric, figures)

    def check_finite(self, outputs: Outputs) -> None:
        """Raise DataError for outputs of an evaluation that are no numbers."""
        for own in outputs.each():
            if not torch.isfinite(own).all():
                raise DataError(self._diverged("the evaluation's outputs", float(own.double().sum())))

    def save(self) -> None:
        """Keep all that an exact resume needs."""
        tensors = self.head.tensors
        if self.freezing is not None:
            self.freezing.moving.seal()
            tensors = {**tensors, **self.freezing.tensors}
        self.state.phases = added(self.state.phases, self.phases.take())
        if self.parallel is not None:
            self.parallel.check_alike()  # each has sealed its rows by then
        if self.writes:
            state, identity = self.state, self.identity
            runs.save_state(self.folder, state, tensors, self.optimizer, self.scaler, self.randomness, identity)
            if self.freezing is not None:
                self.freezing.moving.drop_others()
        if self.parallel is not None:
            self.parallel.ranks.wait()  # so that none ends before it is there

    def close(self) -> None:
        """Stop writing rows, however the training has ended."""
        if self.freezing is not None:
            self.freezing.moving.close()

    def load(self) -> None:
        """Go on from the checkpoint, if there is one; the log lines of what will be done again are dropped."""
        found = None
        if self.writes:
            found = runs.load_state(
                self.folder, self.head.tensors, self.optimizer, self.scaler, self.randomness, self.identity
            )
        if self.parallel is not None:
            found = self.parallel.begin_as_first(found, self.optimizer, self.scaler)
        self.state = found or State(cut=self.head.cut)

    def take_best(self) -> None:
        """Put the best weights in place, if evaluations have chosen some."""
        if self.state.best is not None and self.writes:
            runs.load_best(self.folder, self.head.tensors, self.state.best_step)

    @property
    def _named(self) -> str:
        return self.name and f"head {self.name!r}: "

    def _diverged(self, what: str, value: float) -> str:
        return (
            f"{self._named}{what} became {value}; lower --learning-rate (now "
            f"{self.settings.highest_rate:g}), or train with --precision float32"
        )


def step_record(state: State, loss: float, rate: float, norm: float, samples: int) -> dict[str, Any]:
    """The line that a step leaves in the log."""
    return {
        "step": state.step,
        "epoch": state.current_epoch,
        "loss": loss,
        "learning_rate": rate,
        "grad_norm": norm,
        "samples": samples,
    }
