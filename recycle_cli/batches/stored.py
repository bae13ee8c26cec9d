"""Stored rows -> shuffled padded tensors: which samples share a batch, and how their rows reach the head."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from recycle_cli.batches.group_sampler import Indices as Indices
from recycle_cli.batches.group_sampler import grouped
from recycle_cli.store import Store, Window

Batch = dict[str, torch.Tensor]

Loaded = tuple[Indices, Batch]
"""A batch: its members' places in the data, and their tensors."""

BUCKET_BATCHES = 50
"""Batches sorted by length at once: enough that padding is small, few enough that an epoch stays well shuffled."""


def shuffled(lengths: Indices, batch_size: int, seed: int, epoch: int, least: int = 1) -> list[Indices]:
    """The batches of one epoch: shuffled, then sorted by length within buckets, then the batches shuffled.

    The same lengths, batch size, seed and epoch always give the same batches, which is what makes resuming exact.
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


@dataclass(frozen=True)
class Order:
    """How the batches of an epoch are drawn. `least`: the fewest samples that a batch may have.

    `groups` (n,): the group of each sample, where samples of one come into a batch by `group_samples`.
    """

    batch_size: int
    seed: int
    least: int = 1
    groups: Indices | None = None
    group_samples: int = 1

    def batches(self, lengths: Indices, epoch: int) -> list[Indices]:
        """The batches of epoch `epoch` (from 0)."""
        if self.groups is None:
            return shuffled(lengths, self.batch_size, self.seed, epoch, self.least)
        return grouped(self.groups, self.batch_size, self.group_samples, self.seed, epoch)

    def among(self, members: Indices) -> "Order":
        """The same for these samples alone."""
        return self if self.groups is None else replace(self, groups=self.groups[members])


def in_order(lengths: Indices, batch_size: int) -> list[Indices]:
    """Batches for evaluation: sorted by length, longest first."""
    order = np.argsort(-lengths, kind="stable")
    return [order[at : at + batch_size] for at in range(0, len(order), batch_size)]


@dataclass(frozen=True)
class Epoch:
    """The batches of one pass over the data, and how to read them from the `start`-th on."""

    batches: list[Indices]
    load: Callable[[int], Iterator[Loaded]]


@dataclass(frozen=True)
class StoredRows:
    """Rows of some samples of a store at one cut, ready to be gathered batch by batch.

    `positions` are the samples' places in the store, `lengths` their numbers of rows, both of shape (n,); `views` are
    the places of their augmented views, which have as many rows. `held`: all of the rows, where they are in memory.
    """

    store: Store
    cut: str
    positions: Indices
    lengths: Indices
    views: tuple[Indices, ...] = ()
    held: Window | None = None

    @classmethod
    def of(cls, store: Store, cut: str, positions: Indices, views: tuple[Indices, ...] = ()) -> "StoredRows":
        """The rows at these positions, all of which the store must hold."""
        return cls(store, cut, positions, store.lengths(positions), views)

    @property
    def bytes(self) -> int:
        """Bytes of the rows as stored, one view of each sample."""
        return int(self.lengths.sum()) * math.prod(self.store.row_shape(self.cut)) * self.store.stored_dtype.itemsize

    def at_epoch(self, epoch: int) -> "StoredRows":
        """As epoch `epoch` (from 0) sees them: one view after another, from the first on again, or the plain rows."""
        return replace(self, positions=self.views[epoch % len(self.views)]) if self.views else self

    def load(self, members: Indices, window: Window | None = None) -> dict[str, torch.Tensor]:
        """`rows` (B, L, *shape) padded with zeros in the stored dtype, `lengths` (B,), and for int8 `scales` (B, L).

        Rows come from `window` where given, which must hold them, else from memory or the store.
        """
        held = window if window is not None else self.held
        positions = self.positions[members]
        values, scales = self.store.gather(self.cut, positions) if held is None else held.gather(positions)
        batch = {"rows": torch.from_numpy(values), "lengths": torch.from_numpy(self.lengths[members])}
        if self.store.recipe.dtype == "bfloat16":
            batch["rows"] = batch["rows"].view(torch.bfloat16)
        if scales is not None:
            batch["scales"] = torch.from_numpy(scales)
        return batch

    def loaded(self, batches: Sequence[Indices]) -> Iterator[Loaded]:
        """Each batch's members with their tensors, in the order given."""
        for members in batches:
            yield members, self.load(members)

    def in_memory(self) -> "StoredRows":
        """The same rows, all read now."""
        every = np.unique(np.concatenate([self.positions, *self.views]))
        (held,) = self.store.windows(self.cut, every, memory=None, seed=0)
        return replace(self, held=held)


@dataclass(frozen=True)
class WindowedRows:
    """Rows of a store that no memory map serves well (compressed, remote, larger than the free memory).

    Whole chunks are read once an epoch, in a random order, into windows of `memory` bytes in all; batches are made and
    shuffled within a window.
    """

    rows: StoredRows
    memory: int

    @property
    def lengths(self) -> Indices:
        """Rows of each sample, (n,)."""
        return self.rows.lengths

    def epoch(self, order: Order, number: int) -> Epoch:
        """The batches of epoch `number` (from 0), planned before anything is read."""
        rows = self.rows.at_epoch(number)
        shares = [
            [members[batch] for batch in order.among(members).batches(rows.lengths[members], number)]
            for members in self._members(rows, order, number)
        ]
        windows = partial(
            rows.store.windows,
            rows.cut,
            rows.positions,
            memory=self.memory,
            seed=[order.seed, number],
            batch_size=order.batch_size,
        )

        def load(start: int) -> Iterator[Loaded]:
            done = 0
            for window, batches in zip(windows(), shares, strict=True):
                for members in batches[max(0, start - done) :]:
                    yield members, rows.load(members, window)
                done += len(batches)

        return Epoch([batch for batches in shares for batch in batches], load)

    def _members(self, rows: StoredRows, order: Order, number: int) -> Iterator[Indices]:
        """Which samples each window hands out. Equal samples share a position: each of them takes one of its turns."""
        by_position = np.argsort(rows.positions, kind="stable")
        ordered = rows.positions[by_position]
        taken = np.zeros(len(ordered), dtype=np.int64)
        plans = rows.store.plan_windows(
            rows.cut, rows.positions, memory=self.memory, seed=[order.seed, number], batch_size=order.batch_size
        )
        for plan in plans:
            firsts = np.searchsorted(ordered, plan.positions)
            turns = taken[firsts] + _turns(plan.positions)
            np.add.at(taken, firsts, 1)
            yield by_position[firsts + turns]


def _turns(values: Indices) -> Indices:
    """For each value, how many equal ones stand before it: [7, 3, 7] gives [0, 0, 1]."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    turns = np.empty(len(values), dtype=np.int64)
    turns[order] = np.arange(len(values)) - np.searchsorted(ordered, ordered)
    return turns


def widened(batch: dict[str, torch.Tensor], *, copy: bool = False) -> torch.Tensor:
    """The rows as float32 (B, L, *shape), after they have reached the device in their small stored form.

    `copy`: never the batch's own, which those stored as float32 are otherwise.
    """
    rows = batch["rows"].to(torch.float32, copy=copy)
    if "scales" in batch:
        scales = batch["scales"]
        rows *= scales.reshape(*scales.shape, *([1] * (rows.dim() - scales.dim())))
    return rows
