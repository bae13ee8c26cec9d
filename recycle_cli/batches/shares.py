"""Batches divided among the processes that train together: each reads the same batches, and of each its share."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from recycle_cli.batches.sampler import Indices, Sampler
from recycle_cli.batches.source import Batch, Epoch, RowSource


def divided(lengths: Indices, count: int) -> list[Indices]:
    """The places of a batch's samples, of these lengths (B,), in `count` shares of about equal padded work.

    Samples of like length stay together, and no share is empty unless there are fewer samples than shares. The padded
    work of a share is the length of its longest sample times their number; the largest share is as small as it can be.
    """
    order = np.argsort(-lengths, kind="stable")
    ordered = np.maximum(lengths[order], 1).tolist()
    low, high = ordered[0], ordered[0] * len(ordered)
    while low < high:
        middle = (low + high) // 2
        if _ends(ordered, middle, count)[-1] == len(ordered):
            high = middle
        else:
            low = middle + 1
    # In a share the samples keep the order that they have in the batch.
    return [np.sort(own) for own in np.split(order, _ends(ordered, low, count)[:-1])]


def _ends(lengths: list[int], most: int, count: int) -> list[int]:
    """Where each share ends if it takes samples, the longest first, for `most` padded work; each leaves one sample for
    every share behind it."""
    ends, at = [], 0
    for behind in range(count - 1, -1, -1):
        left = len(lengths) - at
        if left:
            at += min(max(1, most // lengths[at]), max(1, left - behind), left)
        ends.append(at)
    return ends


@dataclass(frozen=True)
class Shares:
    """How batches are divided among `count` processes, of which this is number `number`.

    lengths  rows of each sample (n,)
    """

    lengths: Indices
    number: int
    count: int

    def of(self, members: Indices) -> list[Indices]:
        """The samples of a batch that each process has."""
        return [members[places] for places in divided(self.lengths[members], self.count)]

    def read(self, members: Indices) -> Indices:
        """The samples of a batch that this process reads: its share, or one of them if that is empty."""
        own = self.of(members)[self.number]
        return own if len(own) else members[:1]


@dataclass(frozen=True)
class _Own:
    """A sampler's batches, of each the samples that one process reads."""

    sampler: Sampler
    number: int
    count: int

    @property
    def batch_size(self) -> int:
        """That of whole batches, by which windows are planned."""
        return self.sampler.batch_size

    @property
    def seed(self) -> int:
        """The sampler's."""
        return self.sampler.seed

    def batches(self, lengths: Indices, epoch: int) -> list[Indices]:
        """What this process reads of each batch."""
        shares = Shares(lengths, self.number, self.count)
        return [shares.read(members) for members in self.sampler.batches(lengths, epoch)]

    def among(self, members: Indices) -> "_Own":
        """The same for some of the samples."""
        return _Own(self.sampler.among(members), self.number, self.count)


@dataclass(frozen=True)
class ShareOfRows:
    """A source of which this process reads its share. Its batches are the whole ones, and their tensors those of the
    share."""

    source: RowSource
    shares: Shares

    @property
    def cuts(self) -> tuple[str, ...]:
        """Those of the source."""
        return self.source.cuts

    @property
    def lengths(self) -> Indices:
        """Rows of each sample (n,)."""
        return self.source.lengths

    @property
    def restriction(self) -> str:
        """That of the source."""
        return self.source.restriction

    def epoch(self, sampler: Sampler, number: int) -> Epoch:
        """The batches of epoch `number` (from 0)."""
        batches = self.source.epoch(sampler, number).batches
        own = self.source.epoch(_Own(sampler, self.shares.number, self.shares.count), number)

        def read(start: int) -> Iterator[Batch]:
            for members, (_, tensors) in zip(batches[start:], own.load(start), strict=True):
                yield Batch(members, tensors)

        return Epoch(batches, read)
