"""A new probe for a task, what it begins with, and what it has learnt of its states."""

from collections.abc import Sequence

import torch
from torch import nn

from recycle_cli.models.embedding import EmbeddingLayer, LinearEmbedding
from recycle_cli.models.probe.network import Probe, ProbeShape
from recycle_cli.models.task_layer import TaskLayer
from recycle_cli.settings import PooledSettings


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


def depth_shares(probe: Probe, cuts: Sequence[str]) -> dict[str, float]:
    """The share of each state in the weights that read it, by the norms of the states' parts: together 1."""
    reading = probe.hidden if probe.hidden is not None else getattr(probe.output, "linear", probe.output)
    assert isinstance(reading, nn.Linear)
    parts = reading.weight.detach().split(probe.shape.sizes, dim=1)
    norms = torch.stack([part.double().norm() for part in parts])
    return dict(zip(cuts, (norms / norms.sum().clamp_min(1e-30)).tolist(), strict=True))
