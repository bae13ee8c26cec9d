"""Bench training from the store, LoRA included, beside the bare head, full fine-tuning, freezing, and the Trainer."""

from dataclasses import replace
from functools import partial
from importlib.util import find_spec

import numpy as np

from recycle_cli.batches import StoredRows, widened
from recycle_cli.bench.epoch import Weights, epoch_seconds, slice_for, trainer_for
from recycle_cli.bench.layout import LORA, OF_STATES, TRAINERS, prefix
from recycle_cli.bench.states import States
from recycle_cli.bench.subject import WHOLE, Subject, discard
from recycle_cli.bench.timing import WARM_UP, Clock, Run, Runner, Unavailable
from recycle_cli.errors import UsageError
from recycle_cli.models import SplitModel
from recycle_cli.models.adapters import attach
from recycle_cli.runtime.devices import to_device
from recycle_cli.runtime.quick_masks import quick_masks
from recycle_cli.settings import AdapterSettings
from recycle_cli.tasks import Classification
from recycle_cli.training import Destination, Head


def runners(subject: Subject) -> dict[str, Runner | Unavailable]:
    """Runners at each cut (from the store, the bare head, frozen without a store), then full, the Trainer and LoRA."""
    found: dict[str, Runner | Unavailable] = {}
    cuts = subject.settings.cuts
    for cut in cuts:
        halves, group = subject.split((cut,)), prefix("finetune", cut, cuts)
        name = halves.cuts[0]
        halves.freeze(name)
        found[f"{group}.store"] = partial(_from_store, subject, halves, name)
        found[f"{group}.bare_head"] = partial(_bare_head, subject, halves, name)
        found[f"{group}.frozen"] = partial(_from_inputs, subject, halves, name)
    found["finetune.full"] = partial(_from_inputs, subject, subject.whole(), WHOLE)
    return found | _trainers(subject) | {LORA: _lora(subject)} | _of_states(subject)


def _of_states(subject: Subject) -> dict[str, Runner | Unavailable]:
    """Runners of heads that read several states."""
    found: dict[str, Runner | Unavailable] = {}
    for name in OF_STATES:
        kind = name.split(".")[1]
        states = States.of(subject, kind)
        found[name] = states if isinstance(states, Unavailable) else partial(_from_states, subject, states)
    return found


def _from_states(subject: Subject, states: States, repetition: int) -> Run:
    """An epoch of a few batches; a linear head is solved on all samples, since it passes over them again and again."""
    members = slice_for(subject, repetition)
    if states.kind == "pooled" and repetition != WARM_UP:
        members = np.arange(len(subject.data))
    return replace(states.runs(members), steps=-(-len(members) // subject.settings.batch_size))


def ours(subject: Subject) -> Runner:
    """The runner of `recycle finetune` from the store at the first cut."""
    halves = subject.split(subject.settings.cuts[:1])
    halves.freeze(halves.cuts[0])
    return partial(_from_store, subject, halves, halves.cuts[0])


def _lora(subject: Subject) -> Runner | Unavailable:
    """Runner of training from the store at the first cut with LoRA on the head, as with `--adapter lora`."""
    if subject.images:
        return Unavailable("only text models take adapters")
    if find_spec("peft") is None:
        return Unavailable("needs peft: pip install 'recycle-cli[adapters]'")
    network = subject.load()
    halves = subject.split(subject.settings.cuts[:1], network)
    name = halves.cuts[0]
    halves.freeze(name)
    try:
        weights = attach(network.loaded, halves, name, AdapterSettings("lora"))
    except UsageError as error:
        return Unavailable(str(error))
    return partial(_from_store, subject, halves, name, weights=weights)


def _trainers(subject: Subject) -> dict[str, Runner | Unavailable]:
    if (lacking := without_trainer(subject)) is not None:
        return {f"finetune.{name}": lacking for name in TRAINERS}
    from recycle_cli.bench.trainer import runners as of_trainer

    return dict(of_trainer(subject, subject.resolve(subject.settings.cuts[0])))


def without_trainer(subject: Subject) -> Unavailable | None:
    """Why transformers' Trainer cannot be measured on this subject; None if it can."""
    # Check here: without accelerate it can be imported, and fails only when it is used.
    if find_spec("accelerate") is None:
        return Unavailable("needs accelerate: pip install 'recycle-cli[bench]'")
    if not isinstance(subject.task, Classification):
        return Unavailable("the Trainer is measured for classification alone")
    return None


def _run(subject: Subject, seconds: float, samples: int) -> Run:
    return Run(seconds, samples, steps=-(-samples // subject.settings.batch_size))


def _from_store(subject: Subject, halves: SplitModel, cut: str, repetition: int, weights: Weights | None = None) -> Run:
    members = slice_for(subject, repetition)
    source = StoredRows.of(subject.store, cut, subject.positions[members])
    return _run(subject, epoch_seconds(subject, halves, cut, source, members, weights=weights), len(members))


def _from_inputs(subject: Subject, halves: SplitModel, cut: str, repetition: int) -> Run:
    members = slice_for(subject, repetition)
    source = subject.inputs(halves, members)
    return _run(subject, epoch_seconds(subject, halves, cut, source, members), len(members))


def _bare_head(subject: Subject, halves: SplitModel, cut: str, repetition: int) -> Run:
    """Time forward, backward and step on the same batches, widened and moved to the device before the clock starts."""
    members = slice_for(subject, repetition)
    source = StoredRows.of(subject.store, cut, subject.positions[members])
    folder, clock, data = subject.folder(), Clock(subject.device), subject.data.take(members)
    head = Head(halves, cut, (cut,), dict(halves.head_parameters(cut)))
    trainer = trainer_for(subject, head, Destination(folder), data)
    ready = []
    for places in trainer.sampler.batches(source.lengths, 0):
        batch = to_device(source.load(places), subject.device)
        wanted = data.targets.take(places).tensor().to(subject.device)
        ready.append(({"rows": widened(batch), "lengths": batch["lengths"]}, wanted))
    halves.model.train()
    with quick_masks(), clock.running():
        for rows, wanted in ready:
            with trainer.autocast():
                outputs = head(rows)
            loss, weight = subject.task.loss(outputs, wanted, None)
            (loss / weight).backward()
            trainer.optimizer.step()
            trainer.optimizer.zero_grad(set_to_none=True)
    discard(folder)
    return _run(subject, clock.seconds, len(members))
