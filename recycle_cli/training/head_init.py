"""A classifier that begins where a pooled head has got to: linear probing first, then fine-tuning.

Source: Kumar et al., Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution (ICLR 2022). The
last layer of a head reads other numbers than a pooled head does, so that it is fitted to the pooled head's outputs, by
least squares over samples of the training.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from recycle_cli.batches import InOrder, RowSource, StoredRows, ready, source_at, widened
from recycle_cli.disk import expanded
from recycle_cli.errors import MismatchError, MissingError, ModelError, UsageError
from recycle_cli.models.embedding import last_layer
from recycle_cli.models.probe import Probe
from recycle_cli.models.state_network import PROBE, load_network
from recycle_cli.runs import RunInfo, check_files, read_info
from recycle_cli.runtime.devices import to_device
from recycle_cli.store import Store
from recycle_cli.training.labelled_data import LabelledData
from recycle_cli.training.probe_head import vectors
from recycle_cli.training.trainer import Trainer

SAMPLES = 2048
"""Samples of the training that the layer is fitted on."""

RIDGE = 1.0
"""The penalty of the fit, as a share of the mean variance of what the layer reads."""


def begin_as(trainers: Sequence[Trainer], run: str, task: str, store: Store | None) -> None:
    """Let the last layer of each head begin with outputs like those of a RUN's pooled head.

    store  what the heads train from. The pooled head's vectors are those of the store of its own training
    Raises UsageError for a RUN of another kind, task or classes, MissingError if its store lacks the samples, and
    ModelError for a model that does not end with a linear layer.
    """
    info = read_info(run)
    check_files(run, info)
    if not info.pooled or info.task != task:
        what = f"a pooled head of --task {info.task}" if info.pooled else "no pooled head"
        raise UsageError(f"--head-init {run}: it is {what}, expected a pooled head of --task {task}")
    if store is None:
        raise UsageError(f"--head-init {run}: what the last layer reads is computed from a STORE; give one")
    probe, base = load_network(Path(expanded(run)), PROBE)
    for trainer in trainers:
        if base.labels != list(trainer.data.names):
            raise UsageError(
                f"--head-init {run}: its outputs are {', '.join(base.labels)}, those of the data "
                f"{', '.join(trainer.data.names)}; leave it out"
            )
    places, wanted = _outputs(probe, info, trainers[0].data, run)
    for trainer in trainers:
        positions = store.lookup(trainer.data.keys[places], trainer.data.digests[places])
        _fit(trainer, source_at(store, trainer.head.reads, [positions], None), wanted.to(trainer.device))


def _outputs(probe: Probe, info: RunInfo, data: LabelledData, run: str) -> tuple[np.ndarray, Tensor]:
    """The outputs (n, C) of a pooled head for samples of the training, and their places (n,) in the data."""
    if info.store is None:
        raise UsageError(f"--head-init {run}: it was trained without a STORE; train it from one")
    own = Store.open(info.store)
    if own.fingerprint != info.fingerprint:
        raise MismatchError(f"--head-init {run}: {info.store} is not the store that it was trained from")
    every = np.linspace(0, len(data) - 1, min(SAMPLES, len(data)), dtype=np.int64)
    positions = own.lookup(data.keys[every], data.digests[every])
    places = every[positions >= 0]
    if len(places) < min(SAMPLES, len(data)) / 2:
        raise MissingError(
            f"--head-init {run}: {info.store} holds {len(places):,} of {len(every):,} samples of the training; train a "
            "pooled head on these data"
        )
    rows = [StoredRows.of(own, cut, positions[positions >= 0]) for cut in info.cuts]
    found = torch.empty(len(places), probe.shape.outputs)
    for start in range(0, len(places), 128):
        members = np.arange(start, min(start + 128, len(places)))
        batches = [one.load(members) for one in rows]
        features = [
            vectors(widened(one), one["lengths"], own.recipe.poolings, probe.shape.poolings).flatten(1)
            for one in batches
        ]
        with torch.no_grad():
            found[members] = probe(torch.cat(features, dim=1))
    return places, found


def _fit(trainer: Trainer, source: RowSource, wanted: Tensor) -> None:
    """Fit the last layer of a head to the wanted outputs (n, C) of the source's samples."""
    model = trainer.head.split.model
    name, layer = last_layer(model)
    if layer is None or layer.out_features != wanted.shape[1] or f"{name}.weight" not in trainer.head.weights:
        raise ModelError(
            f"--head-init: {type(model).__name__} does not end with a linear layer that trains; leave it out"
        )
    given: list[Tensor] = []
    kept = layer.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0].detach().double()))
    order = []
    trainer.head.eval()
    try:
        with torch.no_grad():
            for members, batch in source.epoch(InOrder(64), 0).load(0):
                trainer.head(ready(to_device(batch, trainer.device)))
                order.append(torch.from_numpy(members))
    finally:
        kept.remove()
    read, outputs = torch.cat(given), wanted[torch.cat(order).to(wanted.device)].double()
    if read.dim() != 2 or len(read) != len(outputs):
        raise ModelError(
            f"--head-init: the last layer of {type(model).__name__} reads no vector a sample; leave it out"
        )
    _solve(layer, read, outputs)


def _solve(layer: nn.Linear, read: Tensor, outputs: Tensor) -> None:
    """Put the ridge regression from what a layer reads (n, F) to outputs (n, C) into it."""
    mean, centre = read.mean(0), outputs.mean(0)
    centred = read - mean
    squares = centred.T @ centred
    squares.diagonal().add_(RIDGE * squares.diagonal().mean())
    weights = torch.linalg.solve(squares, centred.T @ (outputs - centre))
    with torch.no_grad():
        layer.weight.copy_(weights.T)
        if layer.bias is not None:
            layer.bias.copy_(centre - mean @ weights)
