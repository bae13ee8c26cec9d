"""A ladder as a head: from rows of several cuts to outputs, without anything of the model."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recycle_cli.batches import INPUTS, RowSource, Sampler, Tensors, at_cut, ready
from recycle_cli.keys import Sample
from recycle_cli.models import SplitModel
from recycle_cli.models.ladder import Ladder, Layout, Measure
from recycle_cli.models.outputs import Outputs
from recycle_cli.runtime.devices import device_holding, to_device
from recycle_cli.training.head import Head, lengths_of

MEASURED = 1024
"""Samples whose rows the means and standard deviations are taken from: a million numbers a channel and more."""


class LadderHead(Head):
    """A ladder over the rows at its cuts, or over the inputs of a batch, which the frozen trunk makes rows of.

    layout  how the rows become the states that it reads
    """

    def __init__(self, split: SplitModel, cut: str, reads: Sequence[str], ladder: Ladder, layout: Layout) -> None:
        super().__init__(split, cut, reads, dict(ladder.named_parameters()), statistics={})
        self.ladder = ladder.to(device_holding(split.model))
        self.layout = layout

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint must hold: the weights, and the means and deviations that states are standardised by."""
        return {**self.weights, **dict(self.ladder.named_buffers())}

    def train(self, mode: bool = True) -> "LadderHead":
        """Put the ladder into training mode; the model stays in eval."""
        nn.Module.train(self, mode)
        return self

    def forward(self, batch: Tensors) -> Outputs:
        """Outputs of a batch of rows in float32, or of inputs."""
        states, lengths = self.states(batch)
        values: Tensor = self.ladder(states, lengths)
        return Outputs(values, lengths if self.ladder.shape.per_row else None)

    def states(self, batch: Tensors) -> tuple[Tensor, Tensor]:
        """The states (S, B, L, width) of a batch, and their lengths (B,)."""
        cuts = self.cut.split(",")
        if self.reads != INPUTS:
            return self.layout.states([at_cut(batch, cut)["rows"] for cut in cuts], batch["lengths"])
        rows = self.split.trunk(batch)
        lengths = lengths_of(batch)
        if lengths is None:
            lengths = torch.ones(len(rows[cuts[0]]), dtype=torch.int64, device=rows[cuts[0]].device)
        return self.layout.states([rows[cut].float() for cut in cuts], lengths)

    def settle(self, source: RowSource, sampler: Sampler) -> None:
        """Take the means and standard deviations of the states from the first batches of the training data."""
        measure, count, device = Measure(), 0, device_holding(self.split.model)
        for members, batch in source.epoch(sampler, 0).load(0):
            with torch.no_grad():
                on_device = to_device(batch, device)
                measure.add(*self.states(ready(on_device) if source.cuts else on_device))
            count += len(members)
            if count >= MEASURED:
                break
        measure.put_into(self.ladder)

    def settle_as(self, other: Head) -> None:
        """Take over the means and standard deviations of another ladder over the same states."""
        assert isinstance(other, LadderHead)
        with torch.no_grad():
            self.ladder.mean.copy_(other.ladder.mean)
            self.ladder.deviation.copy_(other.ladder.deviation)


def row_shapes(split: SplitModel, cuts: Sequence[str], samples: Sequence[Sample]) -> tuple[tuple[int, ...], ...]:
    """The shape of a row at each cut, of a pass of one sample."""
    inputs = split.collate(split.prepare(samples[:1]))
    rows = split.trunk(to_device(inputs, device_holding(split.model)))
    return tuple(tuple(rows[cut].shape[2:]) for cut in cuts)
