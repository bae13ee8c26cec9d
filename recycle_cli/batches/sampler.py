"""Which samples share a batch: shuffled for training, in order of length for evaluation."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]

BUCKET_BATCHES = 50
"""Batches sorted by length at once: enough that padding is small, few enough that an epoch stays well shuffled."""


class Sampler(Protocol):
    """Draws the batches of an epoch. The same arguments always give the same batches, which makes resuming exact."""

    @property
    def batch_size(self) -> int:
        """Samples a batch at most."""

    @property
    def seed(self) -> int:
        """What random orders are drawn from."""

    def batches(self, lengths: Indices, epoch: int) -> list[Indices]:
        """The batches of epoch `epoch` (from 0) over samples of these lengths (n,): every sample once."""

    def among(self, members: Indices) -> "Sampler":
        """The same sampler for these samples alone, which are then called by their places in `members`."""


@dataclass(frozen=True)
class Shuffled:
    """Random batches of samples of like length. `least`: the fewest samples that a batch may have."""

    batch_size: int
    seed: int
    least: int = 1

    def batches(self, lengths: Indices, epoch: int) -> list[Indices]:
        """Shuffled, then sorted by length within buckets, then the batches shuffled."""
        return shuffled(lengths, self.batch_size, self.seed, epoch, self.least)

    def among(self, members: Indices) -> "Shuffled":
        """The same."""
        return self


@dataclass(frozen=True)
class InOrder:
    """Batches sorted by length, longest first: the least padding, for evaluation."""

    batch_size: int
    seed: int = 0

    def batches(self, lengths: Indices, epoch: int) -> list[Indices]:
        """The same in every epoch."""
        return in_order(lengths, self.batch_size)

    def among(self, members: Indices) -> "InOrder":
        """The same."""
        return self


def shuffled(lengths: Indices, batch_size: int, seed: int, epoch: int, least: int = 1) -> list[Indices]:
    """The batches of one epoch: shuffled, then sorted by length within buckets, then the batches shuffled.

    `least`: a last batch of fewer samples joins the one before it (BatchNorm cannot train on a single sample).
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths))
    batches: list[Indices] = []
    for start in range(0, len(order), batch_size * BUCKET_BATCHES):
        bucket = order[start : start + batch_size * BUCKET_BATCHES]
        bucket = bucket[np.argsort(-lengths[bucket], kind="stable")]
        batches += [bucket[at : at + batch_size] for at in range(0, len(bucket), batch_size)]
    if len(batches) > 1 and len(batches[-1]) < least:
        batches[-2:] = [np.concatenate(batches[-2:])]
    return [batches[at] for at in rng.permutation(len(batches))]


def in_order(lengths: Indices, batch_size: int) -> list[Indices]:
    """Batches sorted by length, longest first."""
    order = np.argsort(-lengths, kind="stable")
    return [order[at : at + batch_size] for at in range(0, len(order), batch_size)]
