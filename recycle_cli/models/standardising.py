"""The means and standard deviations by which small networks standardise the numbers that they read."""

import torch
from torch import Tensor

from recycle_cli.models.ladder.network import Ladder
from recycle_cli.models.probe.network import Probe

LEAST_DEVIATION = 1e-2
"""The least standard deviation of a number, as a share of the mean of all: one may be the same for every sample."""


class Measure:
    """Counts rows of numbers, for the mean and the standard deviation of each."""

    def __init__(self) -> None:
        self._count, self._sum, self._squares = 0, torch.zeros(()), torch.zeros(())

    def add(self, rows: Tensor) -> None:
        """Rows (..., n, width)."""
        exact = rows.double().cpu()
        self._count += exact.shape[-2]
        self._sum = self._sum + exact.sum(-2)
        self._squares = self._squares + exact.square().sum(-2)

    @property
    def mean(self) -> Tensor:
        """Of each number, (..., width)."""
        return self._sum / self._count

    @property
    def deviation(self) -> Tensor:
        """The standard deviation of each number, (..., width)."""
        return (self._squares / self._count - self.mean.square()).clamp_min(0).sqrt()


def standardise_by(network: Ladder | Probe, mean: Tensor, deviation: Tensor) -> None:
    """Let a network standardise by means and standard deviations (..., width), none of them next to nothing."""
    least = (LEAST_DEVIATION * deviation.mean(-1, keepdim=True)).clamp_min(1e-6)
    with torch.no_grad():
        network.mean.copy_(mean)
        network.deviation.copy_(deviation.maximum(least))
