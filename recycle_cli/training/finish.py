"""What a training leaves: its figures, and the RUN."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from recycle_cli.models.adapters import merge, save_apart, save_beside
from recycle_cli.runs.card import save_run
from recycle_cli.runs.log import last_loss
from recycle_cli.training.checks import Job
from recycle_cli.training.setup import Setup
from recycle_cli.training.trainer import Head


@dataclass(frozen=True)
class Finetuned:
    """What a training did. Times in seconds; `epoch_seconds` are those of training alone, without evaluation.

    `store_hit_share` is the share of the data that the store held before any of it was computed. `samples` are those
    with a label; `samples_per_second` counts what was learnt from. `classes`: none for an embedding.
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


@dataclass(frozen=True)
class FinetunedHeads:
    """What a training of several heads did. Each of `heads` has its name and the fields of a training alone; the time
    of an epoch is that of all heads which trained in it. `samples_per_second` counts a sample once for each head.

    After a resume `train_seconds` and `samples_per_second` of all are None: not all trained at the same time.
    """

    heads: list[dict[str, Any]]
    train_seconds: float | None
    samples_per_second: float | None
    output: str


def leave_run(head: Head, setup: Setup, job: Job, held: float) -> Finetuned:
    """Save a head that has trained as a RUN, and tell what it did."""
    report = _report(head, held)
    settings, save = head.settings.adapter, setup.loaded.save
    if settings.kind == "bottleneck":
        save = partial(save_beside, setup.loaded, head.weights)
    if settings.kind == "lora":
        if settings.save == "apart":
            save_apart(setup.loaded, head.folder)
        merge(setup.split.model)
    save_run(head.folder, setup.loaded, _about(head, setup, report, job), save)
    return report


def together(reports: Mapping[str, Mapping[str, Any]], output: str, *, resumed: bool) -> FinetunedHeads:
    """The report of several heads from those of each."""
    heads = [{"name": name, **report} for name, report in reports.items()]
    if resumed:
        return FinetunedHeads(heads, None, None, output)
    seconds = max(report["train_seconds"] for report in reports.values())
    seen = sum(report["samples_per_second"] * report["train_seconds"] for report in reports.values())
    return FinetunedHeads(heads, seconds, seen / seconds, output)


def _report(head: Head, held: float) -> Finetuned:
    """The figures of a finished training; without evaluation the last training loss stands for the metrics."""
    state = head.state
    seconds = sum(state.epoch_seconds)
    return Finetuned(
        train_seconds=seconds,
        epoch_seconds=state.epoch_seconds,
        samples_per_second=state.seen / seconds,
        metrics=state.best or {"train_loss": last_loss(head.folder)},
        best_epoch=state.best_epoch or len(state.epoch_seconds),
        output=str(head.folder),
        store_hit_share=held,
        samples=head.samples,
        cut=head.cut,
        classes=head.data.names if head.task.closed else [],
    )


def _about(head: Head, setup: Setup, report: Finetuned, job: Job) -> dict[str, Any]:
    """What `recycle.json` keeps: enough to predict with the RUN, and to tell how it was made."""
    store = setup.store
    return {
        "task": job.task,
        "multi_label": job.data.multi_label,
        "model": setup.model.name,
        "revision": setup.model.revision,
        "max_length": head.split.recipe.max_length,
        "cut": head.cut,
        "fingerprint": store.fingerprint if store is not None else None,
        "recipe": store.recipe.to_json() if store is not None else None,
        "store": store.path if store is not None else None,
        "apart": head.settings.adapter.kind == "bottleneck",
        "data": head.data.digest,
        "evaluated_on": None if job.evaluation is None else list(map(_name, job.evaluation.source)),
        "settings": head.identity,
        "report": asdict(report),
    }


def _name(source: str) -> str:
    """Of a corpus, without the folders of the machine that it lies on."""
    return source if source.startswith("hub:") else Path(source).resolve().name
