"""Stores for which a memory map is slow or missing, compressed, remote or very large, are read in shuffled windows."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from recycle_cli.batches.sampler import Indices, Sampler
from recycle_cli.batches.source import Batch, Epoch
from recycle_cli.batches.stored import StoredRows
from recycle_cli.runtime.memory import free_memory

MOST_BYTES = 4 << 30
"""Most bytes of all windows together, unless the user sets --memory."""


@dataclass(frozen=True)
class WindowedRows:
    """Rows of a store that is compressed, remote, or larger than the free memory.

    Whole chunks are read once an epoch, in a random order, into windows of `memory` bytes in all; batches are made and
    shuffled within a window. `planned_by`: the cut by whose rows a window's samples are counted, so that several cuts
    are read in the same windows; None for the rows' own.
    """

    rows: StoredRows
    memory: int
    planned_by: str | None = None

    @property
    def cuts(self) -> tuple[str, ...]:
        """Where the rows were taken."""
        return self.rows.cuts

    @property
    def lengths(self) -> Indices:
        """Rows of each sample, (n,)."""
        return self.rows.lengths

    @property
    def restriction(self) -> str:
        """Samples of different windows never share a batch."""
        return f"read in windows of {self.memory:,} bytes, "

    def epoch(self, sampler: Sampler, number: int) -> Epoch:
        """The batches of epoch `number` (from 0)."""
        rows = self.rows.at_epoch(number)
        shares = [
            [members[batch] for batch in sampler.among(members).batches(rows.lengths[members], number)]
            for members in self._members(rows, sampler, number)
        ]
        windows = partial(
            rows.store.windows,
            rows.cut,
            rows.positions,
            memory=self.memory,
            seed=[sampler.seed, number],
            batch_size=sampler.batch_size,
            planned_by=self.planned_by,
        )

        def load(start: int) -> Iterator[Batch]:
            done = 0
            for window, batches in zip(windows(), shares, strict=True):
                for members in batches[max(0, start - done) :]:
                    yield Batch(members, rows.load(members, window))
                done += len(batches)

        return Epoch([batch for batches in shares for batch in batches], load)

    def _members(self, rows: StoredRows, sampler: Sampler, number: int) -> Iterator[Indices]:
        """The samples that each window hands out. If equal samples share a position, each is handed out once."""
        by_position = np.argsort(rows.positions, kind="stable")
        ordered = rows.positions[by_position]
        taken = np.zeros(len(ordered), dtype=np.int64)
        plans = rows.store.plan_windows(
            self.planned_by or rows.cut,
            rows.positions,
            memory=self.memory,
            seed=[sampler.seed, number],
            batch_size=sampler.batch_size,
        )
        for plan in plans:
            firsts = np.searchsorted(ordered, plan.positions)
            turns = taken[firsts] + _turns(plan.positions)
            np.add.at(taken, firsts, 1)
            yield by_position[firsts + turns]


def stored_source(
    rows: StoredRows,
    memory: int | None,
    *,
    in_memory: bool = False,
    planned_by: str | None = None,
    share: int = 1,
) -> StoredRows | WindowedRows:
    """How to read rows: from memory, in windows of `memory` bytes, or through the map if that serves best.

    Windows are taken unasked if the store is compressed or remote, or larger than the free memory. `planned_by`: the
    cut whose windows these are to be; `share`: how many cuts share the memory.
    """
    if in_memory:
        return rows.in_memory()
    if memory is None and not rows.store.prefers_windows(planned_by or rows.cut):
        return rows
    return WindowedRows(rows, max(1, (memory or min(MOST_BYTES, free_memory() // 4)) // share), planned_by)


def _turns(values: Indices) -> Indices:
    """The number of equal values before each value: [7, 3, 7] gives [0, 0, 1]."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    turns = np.empty(len(values), dtype=np.int64)
    turns[order] = np.arange(len(values)) - np.searchsorted(ordered, ordered)
    return turns
