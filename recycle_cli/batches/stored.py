"""Stored rows to padded tensors: gathered batch by batch through the map, or from memory."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from recycle_cli.batches.sampler import Indices, Sampler
from recycle_cli.batches.source import Epoch, Tensors, planned
from recycle_cli.batches.unpacked import unpacked
from recycle_cli.store import RowWindow, Store


@dataclass(frozen=True)
class StoredRows:
    """Rows of some samples of a store at one cut, ready to be gathered batch by batch.

    positions  the samples' places in the store (n,)
    lengths    their numbers of rows (n,)
    views      the places of their augmented views, which have as many rows
    held       all of the rows, if they are in memory
    """

    store: Store
    cut: str
    positions: Indices
    lengths: Indices
    views: tuple[Indices, ...] = ()
    held: RowWindow | None = None
    restriction = ""

    @classmethod
    def of(cls, store: Store, cut: str, positions: Indices, views: tuple[Indices, ...] = ()) -> "StoredRows":
        """The rows at these positions, all of which the store must hold."""
        return cls(store, cut, positions, store.lengths(positions), views)

    @property
    def cuts(self) -> tuple[str, ...]:
        """Where the rows were taken."""
        return (self.cut,)

    @property
    def bytes(self) -> int:
        """Bytes of the rows as stored, one view of each sample."""
        return int(self.lengths.sum()) * self.store.row_bytes(self.cut)

    def epoch(self, sampler: Sampler, number: int) -> Epoch:
        """The batches of epoch `number` (from 0)."""
        return planned(sampler.batches(self.lengths, number), self.at_epoch(number).load)

    def at_epoch(self, epoch: int) -> "StoredRows":
        """The rows that epoch `epoch` (from 0) sees: its view, after the last the first again, or the plain rows."""
        return replace(self, positions=self.views[epoch % len(self.views)]) if self.views else self

    def load(self, members: Indices, window: RowWindow | None = None) -> Tensors:
        """The tensors of a `Batch`, its rows padded with zeros.

        Rows come from `window` if given, which must hold them, else from memory or the store.
        """
        held = window if window is not None else self.held
        positions = self.positions[members]
        values, scales = self.store.gather(self.cut, positions) if held is None else held.gather(positions)
        batch = {"rows": torch.from_numpy(values), "lengths": torch.from_numpy(self.lengths[members])}
        if self.store.recipe.dtype == "bfloat16":
            batch["rows"] = batch["rows"].view(torch.bfloat16)
        if scales is not None:
            batch["scales"] = torch.from_numpy(scales)
        if self.store.recipe.dtype == "int4":
            batch["packed"] = torch.empty((0, *self.store.row_shape(self.cut)))
        return batch

    def in_memory(self) -> "StoredRows":
        """The same rows, all read now."""
        every = np.unique(np.concatenate([self.positions, *self.views]))
        (held,) = self.store.windows(self.cut, every, memory=None, seed=0)
        return replace(self, held=held)


def widened(batch: Tensors, *, copy: bool = False) -> torch.Tensor:
    """The rows of a batch as float32 (B, L, *shape). Call it on the device, which rows reach in their stored form.

    `copy`: never the batch's own tensor, which rows stored as float32 are otherwise.
    """
    if "packed" in batch:
        return unpacked(batch["rows"], batch["scales"], tuple(batch["packed"].shape[1:]))
    rows = batch["rows"].to(torch.float32, copy=copy)
    if "scales" in batch:
        scales = batch["scales"]
        rows *= scales.reshape(*scales.shape, *([1] * (rows.dim() - scales.dim())))
    return rows
