"""The training loop, in the open: from stored rows or from raw inputs, the same steps in the same order."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from recycle_cli import runs
from recycle_cli.batches.inputs import SharedBatch, Source, epoch_of, logits_of, once
from recycle_cli.batches.stored import Batch, Indices
from recycle_cli.reports import Bar
from recycle_cli.runtime.devices import pinned, to_device
from recycle_cli.runtime.overlap import prefetch
from recycle_cli.runtime.quick_masks import quick_masks
from recycle_cli.runtime.signals import deferred_signals
from recycle_cli.settings import TrainingSettings
from recycle_cli.training.trainer import Head


def learning_rate(step: int, steps: int, settings: TrainingSettings) -> float:
    """Linear warm-up from 0 over the first share of the steps, then linear decay to 0."""
    warmup = math.ceil(steps * settings.warmup_share)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    return settings.learning_rate * (steps - step) / max(1, steps - warmup)


def train(heads: Sequence[Head], source: Source, evaluation: Source | None, progress: Bar) -> None:
    """Train heads on the same batches, each read once, and leave every head's best weights in place.

    Batch size, order and accumulation are those of the first. An interruption leaves checkpoints to resume from.
    """
    shared, device = heads[0].settings, heads[0].device
    epoch_at = partial(epoch_of, source, heads[0].order)
    first_batches = epoch_at(0).batches
    steps_an_epoch = math.ceil(len(first_batches) / shared.accumulation)
    for head in heads:
        head.check_labels(first_batches)
        head.load()
    last = max(head.settings.epochs for head in heads)
    progress.update(min(head.state.step for head in heads), total=last * steps_an_epoch)

    with quick_masks(), deferred_signals() as signals:
        while going := [head for head in heads if head.goes_on]:
            number = min(head.state.epoch for head in going)
            pupils = [head for head in going if head.state.epoch == number]
            epoch, first = epoch_at(number), min(head.state.batch for head in pupils)
            shares = {id(head): head.shares(epoch.batches) for head in pupils}
            clock = _Clock(pupils)
            for place, (members, batch) in enumerate(prefetch(pinned(epoch.load(first), device)), first):
                # A head that was further when all were interrupted waits for the others.
                fed = [head for head in pupils if head.state.batch == place]
                inputs = SharedBatch(to_device(batch, device), len(fed))
                for head in fed:
                    _learn(head, members, inputs.ready(), shares[id(head)][place])
                ends = place + 1 == len(epoch.batches)
                if (place + 1) % shared.accumulation and not ends:
                    continue

                for head in fed:
                    _step(head, steps_an_epoch, progress)
                progress.update(1)
                if evaluation and not ends and (due := [head for head in fed if _is_due(head)]):
                    with clock.stopped():
                        _judge(due, evaluation)
                if signals.asked or (shared.save_steps and fed[0].state.step % shared.save_steps == 0):
                    with clock.stopped():
                        for head in pupils:
                            head.save()
                        signals.stop_here()

            clock.stop()
            for head in pupils:
                head.end_epoch()
            if evaluation:
                _judge(pupils, evaluation)
            for head in pupils:
                head.save()
            signals.stop_here()
    for head in heads:
        runs.load_best(head.folder, head.tensors)


def _learn(head: Head, members: Indices, inputs: Batch, share: float) -> None:
    """Forward and backward on those of a batch that the head learns from; `share` is what it counts in its step."""
    head.state.batch += 1
    known, part = head.part(members, inputs)
    if not len(known):
        return
    logits, mix = head.logits(part)
    loss = share * head.loss(logits, known, mix)
    head.scaler.scale(loss).backward()
    head.count(loss, len(known))


def _step(head: Head, steps_an_epoch: int, progress: Bar) -> None:
    """An optimizer step, logged; one that nothing was learnt for counts, so that the schedule is that of all heads."""
    rate = learning_rate(head.state.step, head.settings.epochs * steps_an_epoch, head.settings)
    for group_of_weights in head.optimizer.param_groups:
        group_of_weights["lr"] = rate
    head.state.step += 1
    loss, samples = head.counted()
    if not samples:
        return
    head.state.seen += samples
    norm = head.clipped()
    head.scaler.step(head.optimizer)
    head.scaler.update()
    head.optimizer.zero_grad(set_to_none=True)
    head.note(_step_record(head, loss, rate, norm, samples))
    progress.update(note=f"epoch {head.state.epoch + 1}, loss {loss:.4f}")


class _Clock:
    """The time of an epoch's training alone, which heads that train together share; runs while they are in train."""

    def __init__(self, pupils: Sequence[Head]) -> None:
        self.pupils = pupils
        self._start()

    def _start(self) -> None:
        for head in self.pupils:
            head.split.model.train()
        self._started = time.perf_counter()

    def stop(self) -> None:
        """Add what has passed since the start to the epoch's time."""
        for head in self.pupils:
            head.state.seconds += time.perf_counter() - self._started

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """The clock stands still; the heads train again afterwards."""
        self.stop()
        yield
        self._start()


def evaluate(heads: Sequence[Head], source: Source) -> list[torch.Tensor]:
    """Outputs (n, width) of each head for all samples of a source, float32 on the CPU, in the samples' order."""
    for head in heads:
        head.split.model.eval()
    found: list[list[torch.Tensor]] = [[] for _ in heads]
    places: list[torch.Tensor] = []
    with torch.inference_mode():
        for members, batch in prefetch(pinned(once(source, 2 * heads[0].settings.batch_size), heads[0].device)):
            inputs = SharedBatch(to_device(batch, heads[0].device), len(heads))
            for head, logits in zip(heads, found, strict=True):
                with head.autocast():
                    logits.append(logits_of(head.split, head.cut, inputs.ready())[0].float().cpu())
            places.append(torch.from_numpy(members))
    order = torch.argsort(torch.cat(places))
    return [torch.cat(logits)[order] for logits in found]


def _judge(heads: Sequence[Head], evaluation: Source) -> None:
    for head, logits in zip(heads, evaluate(heads, evaluation), strict=True):
        head.judge(logits)


def _is_due(head: Head) -> bool:
    return head.settings.eval_steps > 0 and head.state.step % head.settings.eval_steps == 0


def _step_record(head: Head, loss: float, rate: float, norm: float, samples: int) -> dict[str, Any]:
    return {
        "step": head.state.step,
        "epoch": head.state.epoch,
        "loss": loss,
        "learning_rate": rate,
        "grad_norm": norm,
        "samples": samples,
    }
