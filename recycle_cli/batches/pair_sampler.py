"""Batches of whole pairs: each sample is followed by its partner."""

from dataclasses import dataclass

import numpy as np

from recycle_cli.batches.sampler import Indices, shuffled
from recycle_cli.errors import UsageError


@dataclass(frozen=True)
class Paired:
    """Random batches of pairs of like length, [q0, a0, q1, a1, ...], over samples that lie in pairs.

    `pairs`: the most pairs of a batch. A batch has at least two, since the loss tells a pair from the others.
    """

    pairs: int
    seed: int

    @property
    def batch_size(self) -> int:
        """Samples a batch at most."""
        return 2 * self.pairs

    def batches(self, lengths: Indices, epoch: int) -> list[Indices]:
        """Every pair once."""
        drawn = shuffled(lengths[0::2] + lengths[1::2], self.pairs, self.seed, epoch, least=2)
        return [np.stack([2 * members, 2 * members + 1], axis=1).reshape(-1) for members in drawn]

    def among(self, members: Indices) -> "Paired":
        """Raises UsageError: a window may hold one sample of a pair without the other."""
        raise UsageError(
            "pairs cannot be read in windows, which may separate them; add --in-memory, or leave out --memory"
        )
