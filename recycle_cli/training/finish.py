"""What a training leaves: its figures, and the RUN."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from recycle_cli.models import AnyLoaded
from recycle_cli.models.adapters import merge, save_apart, save_beside
from recycle_cli.runs import SCRATCH, RunFolder, RunInfo, card_of, last_loss, put_in_place, save_run
from recycle_cli.settings import AdapterSettings, Job
from recycle_cli.training.freezing.picture import draw
from recycle_cli.training.ladder_head import LadderHead
from recycle_cli.training.probe_head import ProbeHead
from recycle_cli.training.setup import Setup
from recycle_cli.training.states_head import StatesHead
from recycle_cli.training.states_run import write_network
from recycle_cli.training.trainer import Trainer


@dataclass(frozen=True)
class Finetuned:
    """What a training did. Times in seconds; `epoch_seconds` are those of training alone, without evaluation.

    `store_hit_share` is the share of the data that the store held before any of it was computed. `samples` are those
    with a label; `samples_per_second` counts the ones learnt from. `classes`: none for an embedding.
    `evaluation_samples`: those with a label that the metrics are of, 0 without an evaluation. `metric`: the one that
    chose the best weights, None without an evaluation; they are those of `best_epoch`, after `best_step` steps.

    `epochs`: of each epoch, counted from 1, its number `epoch`, its last `step`, its mean training loss `epoch_loss`,
    its `seconds`, those of its `phases`, and the `metrics` at its end; with --freeze also `read_cut` and `frozen_cut`,
    the cuts whose rows it read and before which nothing trained at its begin. A head that is solved has one, and
    `solved_with` is its lambda. `depth`: of a pooled head the share of each state in its weights.

    `ranks`: the processes that have trained together; if there were several, each of `epochs` has in `sent` the bytes
    and seconds of what one of them has sent the others.

    `freezing`: the rule, the layers, those that are frozen, the cut behind them, and the moves of the cut that is read;
    None without --freeze.
    """

    train_seconds: float
    epoch_seconds: list[float]
    samples_per_second: float
    metrics: dict[str, float]
    best_epoch: int
    output: str
    store_hit_share: float
    samples: int
    cut: str
    classes: list[str]
    evaluation_samples: int = 0
    metric: str | None = None
    best_step: int = 0
    epochs: list[dict[str, Any]] = field(default_factory=list)
    freezing: dict[str, Any] | None = None
    ranks: int = 1
    solved_with: float | None = None
    depth: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class FinetunedHeads:
    """What a training of several heads did. Each of `heads` has its name and the fields of a training alone; the time
    of an epoch is that of all heads which trained in it, and its reading a phase of the first of them.
    `samples_per_second` counts a sample once for each head.

    After a resume `train_seconds` and `samples_per_second` of all are None: not all trained at the same time.
    """

    heads: list[dict[str, Any]]
    train_seconds: float | None
    samples_per_second: float | None
    output: str


@dataclass(frozen=True)
class Origin:
    """Where a head comes from: the columns of its data by what they hold, the share of the data that the store held
    before, and what was asked for, as `config.toml`."""

    columns: Mapping[str, str]
    held: float
    config: str


def leave_run(trainer: Trainer, setup: Setup, job: Job, origin: Origin, place: RunFolder) -> Finetuned:
    """Save a head that has trained as a RUN in its place, and report on its training."""
    report = _report(trainer, origin.held, place.output)
    info = _info(trainer, setup, report, job, origin)
    task = trainer.task
    card = card_of(
        setup.loaded, info, task.pipeline(job.task, setup.loaded.library), task.described(trainer.data.names)
    )
    whole = trainer.settings.layers.save == "whole"
    save = partial(write_model, setup.loaded, trainer.settings.adapter, trainer.head.weights)
    if isinstance(trainer.head, StatesHead):
        save = partial(write_network, setup, trainer.head, task.layer(trainer.data.names), whole=whole)
    save_run(place.work, setup.loaded, info, card, origin.config, save)
    if trainer.freezing is not None and trainer.settings.freezing.keep_scratch:
        trainer.freezing.moving.scratch.leave(place.work / SCRATCH)
    put_in_place(place)
    if trainer.freezing is not None and trainer.settings.freezing.plot is not None:
        draw(trainer.settings.freezing.plot, trainer.freezing.head.layers.cuts, report.epochs)
    return report


def write_model(
    loaded: AnyLoaded, adapter: AdapterSettings, weights: Mapping[str, Tensor], folder: Path, max_length: int | None
) -> None:
    """Write a trained model as its RUN holds it; `weights` are what trained. An adapter of the model is gone then."""
    if adapter.kind == "bottleneck":
        save_beside(loaded, weights, folder, max_length)
        return
    if adapter.kind == "lora":
        if adapter.save == "apart":
            save_apart(loaded, folder)
        merge(loaded.model)
    loaded.save(folder, max_length)


def together(reports: Mapping[str, Mapping[str, Any]], output: str, *, resumed: bool) -> FinetunedHeads:
    """The report of several heads from those of each."""
    heads = [{"name": name, **report} for name, report in reports.items()]
    if resumed:
        return FinetunedHeads(heads, None, None, output)
    seconds = max(report["train_seconds"] for report in reports.values())
    seen = sum(report["samples_per_second"] * report["train_seconds"] for report in reports.values())
    return FinetunedHeads(heads, seconds, seen / seconds, output)


def _report(trainer: Trainer, held: float, output: Path) -> Finetuned:
    """The figures of a finished training; without evaluation the last training loss stands for the metrics."""
    state = trainer.state
    seconds = sum(state.epoch_seconds)
    return Finetuned(
        train_seconds=seconds,
        epoch_seconds=state.epoch_seconds,
        samples_per_second=state.seen / seconds,
        metrics=state.best or {"train_loss": last_loss(trainer.folder)},
        best_epoch=state.best_epoch or len(state.epoch_seconds),
        output=str(output),
        store_hit_share=held,
        samples=trainer.samples,
        cut=state.cut,
        classes=trainer.data.names if trainer.task.closed else [],
        evaluation_samples=0 if trainer.evaluation is None else len(trainer.evaluation.labelled_samples),
        metric=None if state.best is None else trainer.metric,
        best_step=state.best_step or state.step,
        epochs=state.epochs,
        freezing=None if trainer.freezing is None else trainer.freezing.report(),
        ranks=1 if trainer.parallel is None else trainer.parallel.ranks.count,
        solved_with=trainer.l2,
        depth=trainer.head.depth if isinstance(trainer.head, ProbeHead) else {},
    )


def _info(trainer: Trainer, setup: Setup, report: Finetuned, job: Job, origin: Origin) -> RunInfo:
    store = setup.store
    return RunInfo(
        task=job.task,
        multi_label=bool(trainer.task.identity().get("multi_label")),
        model=setup.model.name,
        revision=setup.model.settings.revision,
        max_length=setup.split.recipe.max_length,
        cut=trainer.state.cut,
        fingerprint=store.fingerprint if store is not None else None,
        recipe=store.recipe.to_json() if store is not None else None,
        store=store.path if store is not None else None,
        apart=trainer.settings.adapter.kind == "bottleneck" or setup.reused is not None,
        reuse=None if setup.reused is None else setup.reused.to_json(),
        ladder=isinstance(trainer.head, LadderHead),
        pooled=isinstance(trainer.head, ProbeHead),
        data=trainer.data.digest,
        columns=origin.columns,
        evaluated_on=None if job.evaluation is None else list(map(_name, job.evaluation.source)),
        settings=trainer.identity,
        report=asdict(report),
    )


def _name(source: str) -> str:
    """A corpus's name, without the folders of the machine that it lies on."""
    return source if source.startswith("hub:") else Path(source).resolve().name
