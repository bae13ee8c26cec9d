"""Makes the trainer of a head from its model, its data and its settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from recycle_cli.batches import INPUTS, Tensors
from recycle_cli.keys import Sample
from recycle_cli.models.adapters import attach
from recycle_cli.models.ladder import Layout, new_ladder
from recycle_cli.models.ladder.layout import channels
from recycle_cli.models.probe import new_probe
from recycle_cli.runs import Log, ignore
from recycle_cli.runtime.devices import autocast, device_holding, to_device
from recycle_cli.runtime.random_generators import Randomness
from recycle_cli.settings import TrainingSettings
from recycle_cli.tasks import Task
from recycle_cli.training.freezing.checks import why_not_kept
from recycle_cli.training.freezing.freezing import LAYER, Freezing
from recycle_cli.training.freezing.head import FreezingHead
from recycle_cli.training.freezing.layers import layers_between
from recycle_cli.training.freezing.moving import Computing, MovingCut
from recycle_cli.training.freezing.scratch import Contents, Scratch
from recycle_cli.training.head import Head
from recycle_cli.training.labelled_data import LabelledData
from recycle_cli.training.ladder_head import LadderHead
from recycle_cli.training.optimizer import make_optimizer
from recycle_cli.training.probe_head import ProbeHead, poolings_of
from recycle_cli.training.setup import Setup
from recycle_cli.training.states_head import row_shapes
from recycle_cli.training.trainer import Trainer

Pair = tuple[LabelledData, LabelledData | None]
"""What a head trains on, and what it is evaluated on."""


@dataclass(frozen=True)
class Destination:
    """Where a training leaves its checkpoints and its log.

    folder    the folder that the RUN is trained in
    identity  all that must be the same for a resumed training to go on as if it had never stopped
    name      the head's, if it is one of several
    """

    folder: Path
    identity: Mapping[str, Any] = field(default_factory=dict)
    log: Log = ignore
    name: str = ""


def new_trainer(setup: Setup, settings: TrainingSettings, task: Task, data: Pair, to: Destination) -> Trainer:
    """The trainer of a head that trains on the first of `data` and is evaluated on the second; the trunk is frozen."""
    torch.manual_seed(settings.seed)
    reads = INPUTS if setup.store is None else setup.cuts
    if settings.layers.kind == "ladder":
        layout = Layout(row_shapes(setup.split, setup.cuts, data[0].probes))
        ladder = new_ladder(task.layer(data[0].names), layout, settings.layers.ladder, settings.seed)
        head: Head = LadderHead(setup.split, setup.cut, reads, ladder, layout)
        return trainer_of(head, settings, task, data, to, setup.model.settings.precision)
    if settings.layers.kind == "pooled":
        shapes = row_shapes_of(setup, data[0].probes)
        poolings = poolings_of(settings.layers.pooled.pool, setup.split, shapes)
        layer, widths = task.layer(data[0].names), [channels(shape) for shape in shapes]
        probe = new_probe(layer, widths, poolings, settings.layers.pooled, settings.seed)
        head = ProbeHead(setup.split, setup.cut, reads, probe)
        return trainer_of(head, settings, task, data, to, setup.model.settings.precision)
    if settings.freezing.freezes:
        return _freezing_trainer(setup, settings, task, data, to)
    weights = dict(setup.split.head_parameters(setup.cut))
    if settings.adapter.kind != "none":
        weights = attach(setup.loaded, setup.split, setup.cut, settings.adapter)
    head = Head(setup.split, setup.cut, reads, weights)
    return trainer_of(head, settings, task, data, to, setup.model.settings.precision)


def _freezing_trainer(setup: Setup, settings: TrainingSettings, task: Task, data: Pair, to: Destination) -> Trainer:
    """The trainer of a head whose layers freeze while it trains: the model is split behind each block."""
    assert setup.network is not None
    about, store, split = settings.freezing, setup.store, setup.split
    every = (*split.cuts, "every")
    deep = setup.network.split(every, "float32") if store is None else setup.network.stored(every, store.recipe.dtype)
    head = FreezingHead(
        layers_between(deep, setup.cut, leaves=about.unit == "leaf"), INPUTS if store is None else (setup.cut,)
    )
    trainer = trainer_of(head, settings, task, data, to, setup.model.settings.precision)
    if about.anneal:
        trainer.optimizer = make_optimizer(head.weights, settings, head.layers.weights, LAYER)

    def probe() -> Tensors:
        return to_device(split.collate(split.prepare(data[0].probes[:1])), trainer.device)

    dtype = about.dtype or ("float16" if store is None else store.recipe.dtype)
    contents = Contents([(one.keys, one.digests) for one in data if one is not None])
    scratch = Scratch(to.folder, deep, contents, dtype, None if store is None else store.fingerprint)
    computing = Computing(trainer.autocast, trainer.phases, probe)
    moving = MovingCut(to.folder, head, about, scratch, computing, why_not_kept(settings), settings.in_memory)
    trainer.freezing = Freezing(settings, head, trainer.optimizer, moving)
    return trainer


def row_shapes_of(setup: Setup, samples: Sequence[Sample]) -> Sequence[tuple[int, ...]]:
    """The shape of a row at each cut that a head reads: the store's or, without one, of a pass of one sample."""
    if setup.store is not None:
        return [setup.store.row_shape(cut) for cut in setup.cuts]
    return row_shapes(setup.split, setup.cuts, samples)


def trainer_of(
    head: Head, settings: TrainingSettings, task: Task, data: Pair, to: Destination, precision: str
) -> Trainer:
    """The trainer of a head whose adapter, if any, is in place."""
    device = device_holding(head.split.model)
    return Trainer(
        head=head,
        task=task,
        data=data[0],
        evaluation=data[1],
        settings=settings,
        optimizer=make_optimizer(head.weights, settings),
        scaler=torch.amp.GradScaler(
            device.type,
            # The losses of a batch are summed, not averaged.
            init_scale=2.0**16 / settings.batch_size,
            enabled=precision == "float16" and device.type == "cuda",
        ),
        autocast=partial(autocast, device, precision),
        randomness=Randomness(settings.seed, device),
        folder=to.folder,
        identity=to.identity,
        log=to.log,
        name=to.name,
    )
