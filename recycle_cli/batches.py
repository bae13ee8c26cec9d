"""Stored rows -> shuffled padded tensors: which samples share a batch, and how their rows reach the head."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from recycle_cli.store import Store

Indices = npt.NDArray[np.int64]

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


def in_order(lengths: Indices, batch_size: int) -> list[Indices]:
    """Batches for evaluation: sorted by length, longest first."""
    order = np.argsort(-lengths, kind="stable")
    return [order[at : at + batch_size] for at in range(0, len(order), batch_size)]


@dataclass(frozen=True)
class StoredRows:
    """Rows of some samples of a store at one cut, ready to be gathered batch by batch.

    `positions` are the samples' places in the store, `lengths` their numbers of rows, both of shape (n,); `views` are
    the places of their augmented views, which have as many rows.
    """

    store: Store
    cut: str
    positions: Indices
    lengths: Indices
    views: tuple[Indices, ...] = ()

    @classmethod
    def of(cls, store: Store, cut: str, positions: Indices, views: tuple[Indices, ...] = ()) -> "StoredRows":
        """The rows at these positions, all of which the store must hold."""
        return cls(store, cut, positions, store.lengths(positions), views)

    def at_epoch(self, epoch: int) -> "StoredRows":
        """As epoch `epoch` (from 0) sees them: one view after another, from the first on again, or the plain rows."""
        return replace(self, positions=self.views[epoch % len(self.views)]) if self.views else self

    def load(self, members: Indices) -> dict[str, torch.Tensor]:
        """`rows` (B, L, *shape) padded with zeros in the stored dtype, `lengths` (B,), and for int8 `scales` (B, L)."""
        lengths = self.lengths[members]
        shape = (len(members), int(lengths.max(initial=1)))
        values = np.empty((*shape, *self.store.row_shape(self.cut)), dtype=self.store.stored_dtype)
        scales = np.empty(shape, dtype=np.float32) if self.store.recipe.dtype == "int8" else None
        self.store.gather(self.cut, self.positions[members], values, scales)
        batch = {"rows": torch.from_numpy(values), "lengths": torch.from_numpy(lengths)}
        if self.store.recipe.dtype == "bfloat16":
            batch["rows"] = batch["rows"].view(torch.bfloat16)
        if scales is not None:
            batch["scales"] = torch.from_numpy(scales)
        return batch

    def loaded(self, batches: Sequence[Indices]) -> Iterator[tuple[Indices, dict[str, torch.Tensor]]]:
        """Each batch's members with their tensors, in the order given."""
        for members in batches:
            yield members, self.load(members)


def widened(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The rows as float32 (B, L, *shape), after they have reached the device in their small stored form."""
    rows = batch["rows"].float()
    if "scales" in batch:
        scales = batch["scales"]
        rows *= scales.reshape(*scales.shape, *([1] * (rows.dim() - scales.dim())))
    return rows
