"""The rows of the same samples at several cuts, read together."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from recycle_cli.batches.sampler import Indices, Sampler
from recycle_cli.batches.source import Batch, Epoch, Tensors
from recycle_cli.batches.stored import StoredRows
from recycle_cli.batches.windowed import WindowedRows, stored_source
from recycle_cli.store import Store

_BETWEEN = "/"
"""Stands between a cut and the name of a tensor; no cut's name has it."""


@dataclass(frozen=True)
class SeveralCuts:
    """Sources of the same samples, each at a cut of its own. A batch has the tensors of each behind its cut's name."""

    parts: tuple[StoredRows | WindowedRows, ...]

    @property
    def cuts(self) -> tuple[str, ...]:
        """Where the rows were taken."""
        return tuple(cut for part in self.parts for cut in part.cuts)

    @property
    def lengths(self) -> Indices:
        """Rows of each sample, (n,): the same at each cut."""
        return self.parts[0].lengths

    @property
    def restriction(self) -> str:
        """That of the first: all are read in the same way."""
        return self.parts[0].restriction

    def epoch(self, sampler: Sampler, number: int) -> Epoch:
        """The batches of epoch `number` (from 0)."""
        epochs = [part.epoch(sampler, number) for part in self.parts]
        first = epochs[0]

        def load(start: int) -> Iterator[Batch]:
            for together in zip(*(epoch.load(start) for epoch in epochs), strict=True):
                assert all(np.array_equal(one.members, together[0].members) for one in together)
                yield Batch(together[0].members, joined(self.cuts, [one.tensors for one in together]))

        return Epoch(first.batches, load)


def source_at(
    store: Store, cuts: Sequence[str], kinds: Sequence[Indices], memory: int | None, *, in_memory: bool = False
) -> StoredRows | WindowedRows | SeveralCuts:
    """The source of rows at these cuts: that of `stored_source` for one, else one of all, with the same windows.

    kinds   the samples' places in the store (n,), then those of each of their augmented views
    memory  bytes of all windows together, which the cuts share
    """
    rows = [StoredRows.of(store, cut, kinds[0], tuple(kinds[1:])) for cut in cuts]
    if len(rows) == 1:
        return stored_source(rows[0], memory, in_memory=in_memory)
    # A batch has the same samples at each cut, so all cuts are read in the windows of the one with the largest rows.
    largest = max(rows, key=lambda one: one.bytes).cut
    return SeveralCuts(
        tuple(stored_source(one, memory, in_memory=in_memory, planned_by=largest, share=len(rows)) for one in rows)
    )


def joined(cuts: Sequence[str], batches: Sequence[Tensors]) -> Tensors:
    """One batch of those of the same samples at several cuts."""
    named = {
        f"{cut}{_BETWEEN}{name}": tensor
        for cut, batch in zip(cuts, batches, strict=True)
        for name, tensor in batch.items()
        if name != "lengths"
    }
    return {**named, "lengths": batches[0]["lengths"]}


def at_cut(batch: Tensors, cut: str) -> Tensors:
    """The tensors of one cut of a batch; a batch with the rows of a single cut, without names of cuts, is returned as
    it is."""
    before = f"{cut}{_BETWEEN}"
    own = {name.removeprefix(before): tensor for name, tensor in batch.items() if name.startswith(before)}
    return {**own, "lengths": batch["lengths"]} if own else batch


def cuts_in(batch: Tensors) -> list[str]:
    """The cuts of a batch of several; none of a batch that has one cut's rows, or inputs."""
    found = (name.rpartition(_BETWEEN)[0] for name in batch)
    return list(dict.fromkeys(cut for cut in found if cut))


def are_rows(name: str) -> bool:
    """Whether a batch's tensor of this name has rows (B, L, *shape)."""
    return name.rpartition(_BETWEEN)[2] == "rows"


def each_rows(batch: Tensors) -> dict[str, torch.Tensor]:
    """The rows in a batch, by the names of their tensors."""
    return {name: tensor for name, tensor in batch.items() if are_rows(name)}
