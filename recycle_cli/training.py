"""The training loop, in the open: from stored rows or from raw inputs, the same steps in the same order."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recycle_cli import runs
from recycle_cli.background import prefetch
from recycle_cli.batches import Indices
from recycle_cli.devices import to_device
from recycle_cli.errors import DataError
from recycle_cli.inputs import Source, epoch_of, logits_of, once
from recycle_cli.labelled import Labelled
from recycle_cli.models import SplitModel
from recycle_cli.reports import Bar
from recycle_cli.settings import TrainingSettings
from recycle_cli.signals import deferred_signals
from recycle_cli.tasks import text_classification as task


def learning_rate(step: int, steps: int, settings: TrainingSettings) -> float:
    """Linear warm-up from 0 over the first share of the steps, then linear decay to 0."""
    warmup = math.ceil(steps * settings.warmup_share)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    return settings.learning_rate * (steps - step) / max(1, steps - warmup)


def make_optimizer(weights: Mapping[str, torch.nn.Parameter], settings: TrainingSettings) -> torch.optim.AdamW:
    """AdamW; no decay on vectors (biases, norms), as is usual."""
    groups = [
        {"params": [w for w in weights.values() if w.dim() > 1], "weight_decay": settings.weight_decay},
        {"params": [w for w in weights.values() if w.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)


@dataclass(frozen=True)
class Trainer:
    """All that a training step touches. `weights` are the head's, and `buffers` the statistics of its BatchNorm layers;
    nothing else ever changes."""

    split: SplitModel
    cut: str
    weights: Mapping[str, torch.nn.Parameter]
    optimizer: torch.optim.AdamW
    scaler: torch.amp.GradScaler
    device: torch.device
    autocast: Callable[[], AbstractContextManager[object]]
    folder: Path
    settings: TrainingSettings
    identity: Mapping[str, Any]
    buffers: Mapping[str, torch.Tensor] = field(default_factory=dict)

    @property
    def state(self) -> dict[str, torch.Tensor]:
        """All that training changes: what a checkpoint must hold."""
        return {**self.weights, **self.buffers}


def train(
    trainer: Trainer,
    source: Source,
    data: Labelled,
    evaluation: tuple[Source, Labelled] | None,
    log: Callable[[Mapping[str, Any]], None],
    progress: Bar,
) -> runs.Progress:
    """Train the head and leave its best weights in place; an interruption leaves a checkpoint to resume from."""
    settings, model = trainer.settings, trainer.split.model
    targets = torch.from_numpy(data.targets)
    class_weights = (
        task.balanced_weights(data.targets, len(data.names)) if settings.class_weights == "balanced" else None
    )
    class_weights = None if class_weights is None else class_weights.to(trainer.device)
    least = 2 if trainer.buffers else 1
    epoch_at = partial(epoch_of, source, settings.batch_size, settings.seed, least=least)
    batches_an_epoch = len(epoch_at(0).batches)
    steps = settings.epochs * math.ceil(batches_an_epoch / settings.accumulation)
    state = runs.load_progress(trainer.folder, trainer.state, trainer.optimizer, trainer.scaler, trainer.identity)
    _keep_lines(trainer.folder / runs.LOG, state.lines)
    progress.update(state.step, total=steps)

    with deferred_signals() as signals:
        while state.epoch < settings.epochs and not _patience_lost(state, settings):
            model.train()
            epoch = epoch_at(state.epoch)
            shares = _shares(epoch.batches, data.targets, class_weights, settings.accumulation)
            step_loss, step_samples = torch.zeros((), device=trainer.device), 0
            started = time.perf_counter()
            for members, batch in prefetch(epoch.load(state.batch)):
                with trainer.autocast():
                    logits, mix = logits_of(
                        trainer.split,
                        trainer.cut,
                        to_device(batch, trainer.device),
                        mixup=settings.mixup,
                        cutmix=settings.cutmix,
                    )
                loss = task.loss(logits, targets[members].to(trainer.device), class_weights)
                if mix is not None:
                    others = targets[members][mix.partners].to(trainer.device)
                    loss = mix.share * loss + (1 - mix.share) * task.loss(logits, others, class_weights)
                loss = shares[state.batch] * loss
                trainer.scaler.scale(loss).backward()
                step_loss += loss.detach()
                step_samples += len(members)
                state.batch += 1
                if state.batch % settings.accumulation and state.batch < len(epoch.batches):
                    continue

                rate = learning_rate(state.step, steps, settings)
                for group_of_weights in trainer.optimizer.param_groups:
                    group_of_weights["lr"] = rate
                norm = _clipped(trainer)
                trainer.scaler.step(trainer.optimizer)
                trainer.scaler.update()
                trainer.optimizer.zero_grad(set_to_none=True)
                state.step += 1
                record = _step_record(state, float(step_loss), rate, norm, step_samples)
                _log(log, state, record)
                progress.update(1, note=f"epoch {state.epoch + 1}, loss {record['loss']:.4f}")
                step_loss, step_samples = torch.zeros((), device=trainer.device), 0

                ends = state.batch == len(epoch.batches)
                if settings.eval_steps and evaluation and state.step % settings.eval_steps == 0 and not ends:
                    state.seconds += time.perf_counter() - started
                    _evaluate_and_keep(trainer, evaluation, state, log)
                    started = time.perf_counter()
                    model.train()
                if signals.asked or (settings.save_steps and state.step % settings.save_steps == 0):
                    state.seconds += time.perf_counter() - started
                    _save(trainer, state)
                    signals.stop_here()
                    started = time.perf_counter()

            state.seconds += time.perf_counter() - started
            state.epoch_seconds.append(state.seconds)
            state.seconds, state.batch = 0.0, 0
            state.epoch += 1
            if evaluation:
                _evaluate_and_keep(trainer, evaluation, state, log)
            _save(trainer, state)
            signals.stop_here()
    runs.load_best(trainer.folder, trainer.state)
    return state


def evaluate(trainer: Trainer, source: Source) -> torch.Tensor:
    """Logits (n, C) of all samples of a source, float32 on the CPU, in the samples' order."""
    trainer.split.model.eval()
    found: list[torch.Tensor] = []
    places: list[torch.Tensor] = []
    with torch.inference_mode():
        for members, batch in prefetch(once(source, 2 * trainer.settings.batch_size)):
            with trainer.autocast():
                logits, _ = logits_of(trainer.split, trainer.cut, to_device(batch, trainer.device))
            found.append(logits.float().cpu())
            places.append(torch.from_numpy(members))
    order = torch.cat(places)
    return torch.cat(found)[torch.argsort(order)]


def _evaluate_and_keep(
    trainer: Trainer,
    evaluation: tuple[Source, Labelled],
    state: runs.Progress,
    log: Callable[[Mapping[str, Any]], None],
) -> None:
    source, data = evaluation
    found = task.metrics(evaluate(trainer, source), torch.from_numpy(data.targets))
    if not math.isfinite(found["loss"]):
        raise DataError(_diverged("the evaluation's loss", found["loss"], trainer.settings))
    _log(log, state, {"step": state.step, "epoch": state.epoch, "evaluation": found})
    if task.is_better(trainer.settings.metric, found, state.best):
        state.best, state.stale_evaluations = found, 0
        state.best_epoch = state.epoch + (1 if state.batch else 0)
        runs.save_best(trainer.folder, trainer.state)
    else:
        state.stale_evaluations += 1


def _patience_lost(state: runs.Progress, settings: TrainingSettings) -> bool:
    return 0 < settings.patience <= state.stale_evaluations


def _shares(
    batches: Sequence[Indices], targets: Indices, class_weights: torch.Tensor | None, accumulation: int
) -> list[float]:
    """What each batch's mean loss counts in its optimizer step, so that a step's loss is the mean over its samples."""
    weights = np.ones(len(targets)) if class_weights is None else class_weights.double().cpu().numpy()[targets]
    sums = [float(weights[members].sum()) for members in batches]
    steps = [sum(sums[at : at + accumulation]) for at in range(0, len(sums), accumulation)]
    return [own / steps[place // accumulation] for place, own in enumerate(sums)]


def _clipped(trainer: Trainer) -> float:
    trainer.scaler.unscale_(trainer.optimizer)
    limit = trainer.settings.max_grad_norm or math.inf
    norm = float(torch.nn.utils.clip_grad_norm_(trainer.weights.values(), limit))
    if not trainer.scaler.is_enabled() and not math.isfinite(norm):
        raise DataError(_diverged("the gradient's norm", norm, trainer.settings))
    return norm


def _diverged(what: str, value: float, settings: TrainingSettings) -> str:
    return (
        f"{what} became {value}; lower --learning-rate (now {settings.learning_rate:g}), "
        "or train with --precision float32"
    )


def _log(log: Callable[[Mapping[str, Any]], None], state: runs.Progress, record: Mapping[str, Any]) -> None:
    log(record)
    state.lines += 1


def _save(trainer: Trainer, state: runs.Progress) -> None:
    runs.save_progress(trainer.folder, state, trainer.state, trainer.optimizer, trainer.scaler, trainer.identity)


def _step_record(state: runs.Progress, loss: float, rate: float, norm: float, samples: int) -> dict[str, Any]:
    return {
        "step": state.step,
        "epoch": state.epoch,
        "loss": loss,
        "learning_rate": rate,
        "grad_norm": norm,
        "samples": samples,
    }


def _keep_lines(path: Path, count: int) -> None:
    """Drop log lines, the last perhaps cut short, of what a resumed run does again."""
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines()[:count]
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
