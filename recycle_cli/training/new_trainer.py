"""A head about to train: made of its model, its data and its settings."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from recycle_cli.batches import INPUTS
from recycle_cli.models.adapters import attach
from recycle_cli.runs import Log
from recycle_cli.runtime.devices import autocast
from recycle_cli.runtime.random_generators import Randomness
from recycle_cli.settings import HeadSettings
from recycle_cli.tasks import Task
from recycle_cli.training.head import Head
from recycle_cli.training.labelled_data import LabelledData
from recycle_cli.training.optimizer import make_optimizer
from recycle_cli.training.setup import Setup
from recycle_cli.training.trainer import Trainer


def new_trainer(
    setup: Setup,
    asked: HeadSettings,
    task: Task,
    data: tuple[LabelledData, LabelledData | None],
    identity: Mapping[str, Any],
    folder: Path,
    log: Log,
) -> Trainer:
    """A head about to train on the first of the data and to be evaluated on the second. Its trunk is frozen already."""
    settings = asked.training
    torch.manual_seed(settings.seed)
    weights = dict(setup.split.head_parameters(setup.cut))
    if settings.adapter.kind != "none":
        weights = attach(setup.loaded, setup.split, setup.cut, settings.adapter)
    device, precision = setup.device, setup.model.precision
    return Trainer(
        head=Head(setup.split, setup.cut, INPUTS if setup.store is None else setup.cut, weights),
        task=task,
        data=data[0],
        evaluation=data[1],
        settings=settings,
        optimizer=make_optimizer(weights, settings),
        scaler=torch.amp.GradScaler(
            device.type,
            # The losses of a batch are summed, not averaged.
            init_scale=2.0**16 / settings.batch_size,
            enabled=precision == "float16" and device.type == "cuda",
        ),
        autocast=partial(autocast, device, precision),
        randomness=Randomness(settings.seed, device),
        folder=folder,
        identity=identity,
        log=log,
        name=asked.name,
    )
