"""A probe as a head: from pooled vectors of several states, or from rows that it pools, to outputs."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from recycle_cli.batches import INPUTS, Indices, RowSource, Sampler, Tensors, at_cut, ready
from recycle_cli.errors import MismatchError
from recycle_cli.models import SplitModel
from recycle_cli.models.outputs import Outputs
from recycle_cli.models.pooling import USUAL_POOLINGS, check_of_images, pooled_rows, rows_in
from recycle_cli.models.probe import Probe, begin_as_last_vector, depth_shares
from recycle_cli.models.state_network import PROBE
from recycle_cli.runtime.devices import device_holding, to_device
from recycle_cli.training.head import Head
from recycle_cli.training.states_head import StatesHead


class ProbeHead(StatesHead):
    """A probe over the states at its cuts: their vectors from a pooled store, or rows and inputs, which it pools.

    measured  if it trains in epochs; a head that is solved is standardised by all samples
    """

    kept, measured = PROBE, 16384
    network: Probe

    @property
    def row_shapes(self) -> list[list[int]]:
        """The width of each state: how its rows lie in a sample is no matter."""
        return [[width] for width in self.network.shape.widths]

    @property
    def depth(self) -> dict[str, float]:
        """The share of each state in the weights that read it."""
        return depth_shares(self.network, self.cuts)

    def forward(self, batch: Tensors) -> Outputs:
        """Outputs of a batch of rows in float32, or of inputs."""
        return Outputs(self.network(self.features(batch)))

    def features(self, batch: Tensors) -> Tensor:
        """The features (B, inputs) of a batch: of each state the vectors that it reads."""
        if self.reads == INPUTS:
            rows = self.split.trunk(batch)
            each, lengths = [rows[cut] for cut in self.cuts], rows_in(batch)
        else:
            each, lengths = [at_cut(batch, cut)["rows"] for cut in self.cuts], batch["lengths"]
        held, poolings = self.split.poolings, self.network.shape.poolings
        return torch.cat([vectors(own, lengths, held, poolings).flatten(1) for own in each], dim=1)

    def given(self, batch: Tensors) -> tuple[Tensor]:
        """The features (B, inputs) of a batch."""
        return (self.features(batch),)

    def standardised(self, *given: Any) -> Tensor:
        """The features."""
        return given[0]

    def each_features(self, source: RowSource, sampler: Sampler) -> Iterator[tuple[Indices, Tensor]]:
        """The features of a source's samples, batch by batch, on the device, with their places."""
        device = device_holding(self.split.model)
        for members, batch in source.epoch(sampler, 0).load(0):
            with torch.inference_mode():
                on_device = to_device(batch, device)
                yield members, self.features(ready(on_device) if source.cuts else on_device)

    def settle(self, source: RowSource, sampler: Sampler) -> None:
        """Take the means and standard deviations of the features, and begin from the last state if that is one of its
        vectors."""
        super().settle(source, sampler)
        begin_as_last_vector(self.network)

    def settle_as(self, other: Head) -> None:
        """Take over the means and standard deviations of another probe over the same states."""
        super().settle_as(other)
        begin_as_last_vector(self.network)


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
