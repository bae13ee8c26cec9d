"""A head that is a small network over a model's states, in place of the model's own layers."""

from collections.abc import Sequence
from copy import copy
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from recycle_cli.batches import INPUTS, RowSource, Sampler, Tensors, ready
from recycle_cli.keys import Sample
from recycle_cli.models import SplitModel
from recycle_cli.models.ladder import Ladder
from recycle_cli.models.probe import Probe
from recycle_cli.models.standardising import Measure, standardise_by
from recycle_cli.models.state_network import Kept
from recycle_cli.runtime.devices import device_holding, to_device
from recycle_cli.training.head import Head


class StatesHead(Head):
    """A network over the states at the cuts of the head: nothing of the model trains.

    kept      how a RUN keeps its network
    measured  samples that the means and standard deviations of its states are taken from
    """

    kept: ClassVar[Kept[Any]]
    measured: ClassVar[int]
    network: Ladder | Probe

    def __init__(self, split: SplitModel, cut: str, reads: Sequence[str], network: Ladder | Probe) -> None:
        super().__init__(split, cut, reads, dict(network.named_parameters()), statistics={})
        self.network = network.to(device_holding(split.model))

    @property
    def cuts(self) -> list[str]:
        """The cuts of its states."""
        return self.cut.split(",")

    @property
    def row_shapes(self) -> list[list[int]]:
        """The shape of a row at each cut, as its RUN keeps them."""
        raise NotImplementedError

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint must hold: the weights, and the means and deviations that states are standardised by."""
        return {**self.weights, **dict(self.network.named_buffers())}

    @property
    def in_place(self) -> "StatesHead":
        """The same head over inputs, of which the model's trunk makes the states."""
        head = copy(self)
        head.reads = INPUTS
        return head

    def given(self, batch: Tensors) -> tuple[Any, ...]:
        """What the network is given of a batch of rows in float32, or of inputs."""
        raise NotImplementedError

    def standardised(self, *given: Any) -> Tensor:
        """The numbers (..., n, width) that the network standardises, of what it is given."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> "StatesHead":
        """Put the network into training mode; the model stays in eval."""
        nn.Module.train(self, mode)
        return self

    def settle(self, source: RowSource, sampler: Sampler) -> None:
        """Take the means and standard deviations of the states from the first batches of the training data."""
        measure, count, device = Measure(), 0, device_holding(self.split.model)
        for members, batch in source.epoch(sampler, 0).load(0):
            with torch.inference_mode():
                on_device = to_device(batch, device)
                measure.add(self.standardised(*self.given(ready(on_device) if source.cuts else on_device)))
            count += len(members)
            if count >= self.measured:
                break
        standardise_by(self.network, measure.mean, measure.deviation)

    def settle_as(self, other: Head) -> None:
        """Take over the means and standard deviations of another head over the same states."""
        assert isinstance(other, StatesHead)
        with torch.no_grad():
            self.network.mean.copy_(other.network.mean)
            self.network.deviation.copy_(other.network.deviation)


def row_shapes(split: SplitModel, cuts: Sequence[str], samples: Sequence[Sample]) -> tuple[tuple[int, ...], ...]:
    """The shape of a row at each cut, of a pass of one sample."""
    inputs = split.collate(split.prepare(samples[:1]))
    rows = split.trunk(to_device(inputs, device_holding(split.model)))
    return tuple(tuple(rows[cut].shape[2:]) for cut in cuts)
