"""Heads about to train: each made of its model, its data and what was asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from recycle_cli.models import SplitModel
from recycle_cli.models.adapters import attach
from recycle_cli.runs.log import Log
from recycle_cli.runtime.devices import autocast
from recycle_cli.runtime.random_generators import Randomness
from recycle_cli.settings import HeadSettings, ModelSettings, TrainingSettings
from recycle_cli.store import Store
from recycle_cli.tasks import Task, chosen_metric
from recycle_cli.training.checks import Job, task_asked
from recycle_cli.training.labelled import Labelled
from recycle_cli.training.setup import Setup, frozen, set_up
from recycle_cli.training.trainer import Head, make_optimizer

Pair = tuple[Labelled, Labelled | None]
"""What a head trains on, and what it is judged by."""


def set_up_all(
    job: Job, model: ModelSettings, store: Store | None, data: Sequence[Labelled], settings: Sequence[TrainingSettings]
) -> list[Setup]:
    """A model for each head, trunk frozen, which is in memory once."""
    return frozen(
        set_up(store, model, job.cut, task_asked(job, one).layer(labelled.names), named=job.model_named, seed=one.seed)
        for labelled, one in zip(data, settings, strict=True)
    )


def new_head(folder: Path, job: Job, asked: HeadSettings, setup: Setup, data: Pair, order: str, log: Log) -> Head:
    """A head about to train on the first of the data, judged by the second."""
    settings = asked.training
    torch.manual_seed(settings.seed)
    weights = dict(setup.split.head_parameters(setup.cut))
    if settings.adapter.kind != "none":
        weights = attach(setup.loaded, setup.split, setup.cut, settings.adapter)
    return make_head(
        setup.split,
        setup.cut,
        weights,
        settings,
        data,
        folder,
        device=setup.device,
        precision=setup.model.precision,
        task=task_asked(job, settings),
        identity=identity(job, setup, settings, data, order),
        log=log,
        name=asked.name,
    )


def make_head(
    split: SplitModel,
    cut: str,
    weights: Mapping[str, torch.nn.Parameter],
    settings: TrainingSettings,
    data: Pair,
    folder: Path,
    *,
    device: torch.device,
    precision: str,
    task: Task,
    identity: Mapping[str, Any],
    log: Log,
    name: str = "",
) -> Head:
    """A head with all that its training needs: an optimizer of `weights`, mixed precision, random numbers of its own.

    Its trunk is frozen already, and its adapter, if any, in place.
    """
    return Head(
        split=split,
        cut=cut,
        weights=weights,
        optimizer=make_optimizer(weights, settings),
        scaler=torch.amp.GradScaler(device.type, enabled=precision == "float16" and device.type == "cuda"),
        autocast=partial(autocast, device, precision),
        randomness=Randomness(settings.seed, device),
        folder=folder,
        settings=settings,
        identity=identity,
        data=data[0],
        evaluation=data[1],
        log=log,
        buffers=dict(split.head_buffers(cut)),
        name=name,
        task=task,
    )


def identity(job: Job, setup: Setup, settings: TrainingSettings, data: Pair, order: str) -> dict[str, Any]:
    """All that must be the same for a resumed run to go on as if it had never stopped."""
    task = task_asked(job, settings)
    free = ("save_steps", "parity_check", "memory", "in_memory", *(() if task.grouped else ("similarity",)))
    return {
        **{name: value for name, value in asdict(settings).items() if name not in free},
        "task": job.task,
        "multi_label": job.data.multi_label,
        "metric": chosen_metric(task, settings.metric),
        "order_seed": settings.shuffle_seed,
        "precision": setup.model.precision,
        "model": setup.model.name,
        "revision": setup.model.revision,
        "max_length": setup.split.recipe.max_length,
        "preprocessor": setup.split.recipe.preprocessor,
        "head_batchnorm": setup.model.images.head_batchnorm,
        "cut": setup.cut,
        "data": data[0].digest,
        "evaluation": data[1].digest if data[1] is not None else None,
        "fingerprint": setup.split.recipe.fingerprint,
        "shuffled_order": order,
    }
