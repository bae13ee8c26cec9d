"""A new probe for a task, and one that is saved in a RUN with what it needs to be loaded again."""

import json
import shutil
from collections.abc import Sequence
from copy import copy
from dataclasses import asdict
from inspect import getfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from recycle_cli.errors import StoreError
from recycle_cli.models.embedding import EmbeddingLayer, LinearEmbedding, numbered
from recycle_cli.models.ladder import Base
from recycle_cli.models.probe.network import Probe, ProbeShape
from recycle_cli.models.task_layer import TaskLayer
from recycle_cli.settings import PooledSettings

FOLDER, ABOUT, CODE = "pooled", "base.json", "probe.py"

LEAST_DEVIATION = 1e-2
"""The least standard deviation of a number, as a share of the mean of all: one may be the same for every sample."""


def new_probe(
    layer: TaskLayer, widths: Sequence[int], poolings: Sequence[str], settings: PooledSettings, seed: int
) -> Probe:
    """A probe over states of these widths that ends with the layer of a task. All its outputs are 0 without a hidden
    layer, whose weights are random, made from `seed`; an embedding is as wide as the last state."""
    hidden = settings.hidden or 0
    dropout = settings.dropout if hidden else 0.0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        size = len(layer.labels or ()) if layer.head is None else layer.head.size or widths[-1]
        probe = Probe(ProbeShape(tuple(widths), tuple(poolings), size, hidden, dropout))
    assert isinstance(probe.output, nn.Linear)
    if layer.head is not None:
        probe.output = LinearEmbedding(probe.output, layer.head.dropout)
    elif not hidden:
        nn.init.zeros_(probe.output.weight)
        nn.init.zeros_(probe.output.bias)
    return probe


def begin_as_last_vector(probe: Probe) -> None:
    """Let a linear embedding begin as the first vector of the last state, which is what most such models give."""
    layer = probe.output
    if probe.hidden is None and isinstance(layer, EmbeddingLayer) and probe.shape.outputs == probe.shape.widths[-1]:
        width, poolings = probe.shape.outputs, len(probe.shape.poolings)
        first = probe.shape.inputs - width * poolings
        own = slice(first, first + width)
        with torch.no_grad():
            layer.linear.weight.zero_()
            layer.linear.weight[:, own] = torch.diag(probe.deviation[own])
            layer.linear.bias.copy_(probe.mean[own])


def outputs_of(probe: Probe, layer: TaskLayer) -> list[str]:
    """A name for each output of a probe."""
    return list(numbered(probe.shape.outputs) if layer.embeds else layer.labels or ())


def standardise_by(probe: Probe, mean: Tensor, deviation: Tensor) -> None:
    """Let a probe standardise by the means and standard deviations (inputs,) of its features."""
    least = (LEAST_DEVIATION * deviation.mean()).clamp_min(1e-6)
    with torch.no_grad():
        probe.mean.copy_(mean)
        probe.deviation.copy_(deviation.clamp_min(least))


def depth_shares(probe: Probe, cuts: Sequence[str]) -> dict[str, float]:
    """The share of each state in the weights that read it, by the norms of the states' parts: together 1."""
    reading = probe.hidden if probe.hidden is not None else getattr(probe.output, "linear", probe.output)
    assert isinstance(reading, nn.Linear)
    parts = reading.weight.detach().split(probe.shape.sizes, dim=1)
    norms = torch.stack([part.double().norm() for part in parts])
    return dict(zip(cuts, (norms / norms.sum().clamp_min(1e-30)).tolist(), strict=True))


def save_probe(folder: Path, probe: Probe, base: Base) -> None:
    """Write a probe into a RUN's folder, with what its pretrained model is, and the code that loads it without us."""
    target = folder / FOLDER
    target.mkdir(parents=True, exist_ok=True)
    plain = copy(probe)
    plain._modules = dict(probe._modules)
    if isinstance(probe.output, EmbeddingLayer):
        plain.output = probe.output.merged()
    plain.save(target)
    (target / ABOUT).write_text(json.dumps(asdict(base), indent=2) + "\n", encoding="utf-8")
    shutil.copyfile(getfile(Probe), target / CODE)


def load_probe(folder: Path) -> tuple[Probe, Base]:
    """The probe of a RUN, and the pretrained model that it was trained on. Raises StoreError if it is damaged."""
    target = folder / FOLDER
    try:
        base = Base(**json.loads((target / ABOUT).read_text(encoding="utf-8")))
        return Probe.load(target).eval(), base
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        said = " ".join(str(error).split())
        raise StoreError(f"{target} is damaged ({said}); train the run again") from error
