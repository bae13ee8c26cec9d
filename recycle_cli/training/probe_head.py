"""A probe as a head: from pooled vectors of several states, or from rows that it pools, to outputs."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from recycle_cli.batches import INPUTS, Indices, RowSource, Sampler, Tensors, at_cut, ready
from recycle_cli.errors import MismatchError
from recycle_cli.models import SplitModel
from recycle_cli.models.outputs import Outputs
from recycle_cli.models.pooling import USUAL_POOLINGS, check_of_images, pooled_rows, rows_in
from recycle_cli.models.probe import Probe, begin_as_last_vector, depth_shares, standardise_by
from recycle_cli.runtime.devices import device_holding, to_device
from recycle_cli.training.head import Head

MEASURED = 16384
"""Samples whose features the means and standard deviations are taken from, if a probe trains in epochs."""


class ProbeHead(Head):
    """A probe over the states at its cuts: their vectors from a pooled store, or rows and inputs, which it pools."""

    def __init__(self, split: SplitModel, cut: str, reads: Sequence[str], probe: Probe) -> None:
        super().__init__(split, cut, reads, dict(probe.named_parameters()), statistics={})
        self.probe = probe.to(device_holding(split.model))

    @property
    def cuts(self) -> list[str]:
        """The cuts of its states."""
        return self.cut.split(",")

    @property
    def depth(self) -> dict[str, float]:
        """The share of each state in the weights that read it."""
        return depth_shares(self.probe, self.cuts)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint must hold: the weights, and the means and deviations that features are standardised by."""
        return {**self.weights, **dict(self.probe.named_buffers())}

    def train(self, mode: bool = True) -> "ProbeHead":
        """Put the probe into training mode; the model stays in eval."""
        nn.Module.train(self, mode)
        return self

    def forward(self, batch: Tensors) -> Outputs:
        """Outputs of a batch of rows in float32, or of inputs."""
        return Outputs(self.probe(self.features(batch)))

    def features(self, batch: Tensors) -> Tensor:
        """The features (B, inputs) of a batch: of each state the vectors that it reads."""
        if self.reads == INPUTS:
            rows = self.split.trunk(batch)
            each, lengths = [rows[cut] for cut in self.cuts], rows_in(batch)
        else:
            each, lengths = [at_cut(batch, cut)["rows"] for cut in self.cuts], batch["lengths"]
        held, poolings = self.split.poolings, self.probe.shape.poolings
        return torch.cat([vectors(own, lengths, held, poolings).flatten(1) for own in each], dim=1)

    def each_features(self, source: RowSource, sampler: Sampler) -> Iterator[tuple[Indices, Tensor]]:
        """The features of a source's samples, batch by batch, on the device, with their places."""
        device = device_holding(self.split.model)
        for members, batch in source.epoch(sampler, 0).load(0):
            with torch.inference_mode():
                on_device = to_device(batch, device)
                yield members, self.features(ready(on_device) if source.cuts else on_device)

    def settle(self, source: RowSource, sampler: Sampler) -> None:
        """Take the means and standard deviations of the features from the first batches of the training data."""
        count, total, squares = 0, torch.zeros(()), torch.zeros(())
        for _, features in self.each_features(source, sampler):
            exact = features.double().cpu()
            count, total, squares = count + len(exact), total + exact.sum(0), squares + exact.square().sum(0)
            if count >= MEASURED:
                break
        mean = total / count
        standardise_by(self.probe, mean.float(), (squares / count - mean.square()).clamp_min(0).sqrt().float())
        begin_as_last_vector(self.probe)

    def settle_as(self, other: Head) -> None:
        """Take over the means and standard deviations of another probe over the same states."""
        assert isinstance(other, ProbeHead)
        standardise_by(self.probe, other.probe.mean, other.probe.deviation)
        begin_as_last_vector(self.probe)


def vectors(rows: Tensor, lengths: Tensor | None, held: Sequence[str], poolings: Sequence[str]) -> Tensor:
    """The vectors (B, poolings, width) of a state, of those that are `held` or, if none are, of rows."""
    if held:
        return rows[:, [held.index(name) for name in poolings]].float()
    return pooled_rows(rows, lengths, poolings)


def poolings_of(asked: Sequence[str], split: SplitModel, shapes: Sequence[Sequence[int]]) -> tuple[str, ...]:
    """The vectors that a probe reads of each state. Raises MismatchError if the store lacks one that was asked for,
    UsageError if the states, whose rows have these shapes, have no such vector."""
    held = split.poolings
    if absent := [name for name in asked if held and name not in held]:
        raise MismatchError(
            f"--pool {','.join(absent)}: the store holds {', '.join(held)}; leave it out, or precompute a store with it"
        )
    found = tuple(asked) or held or USUAL_POOLINGS[split.recipe.modality]
    if split.recipe.modality == "image" and not held:
        for shape in shapes:
            check_of_images(found, shape)
    return found
