"""One batch on the device that several heads take in turn."""

import numpy as np
import torch

from recycle_cli.batches.sampler import Indices
from recycle_cli.batches.several import are_rows, at_cut, cuts_in, each_rows, joined
from recycle_cli.batches.source import Tensors
from recycle_cli.batches.stored import widened


class SharedBatch:
    """A batch that heads take in turn: its rows, if it has any, are widened to float32 once for them all.

    A head may write into them (an in-place ReLU): then, and only then, they are widened anew for the next. A single
    head gets the batch's own, if they are float32 already.
    """

    def __init__(self, batch: Tensors, heads: int) -> None:
        self._batch, self._heads = batch, heads
        self._ready: Tensors | None = None
        self._versions: list[int] = []

    def ready(self) -> Tensors:
        """The batch for the next head, as it was read."""
        if not each_rows(self._batch):
            return self._batch
        return ready(self._batch) if self._heads == 1 else self._unwritten()

    def _unwritten(self) -> Tensors:
        """The batch with a copy of its rows that no head has written into."""
        if self._ready is None or self._written(self._ready) != self._versions:
            # Tensors made in inference mode, as the batch's may be, do not count how often they were written into.
            with torch.inference_mode(False):
                self._ready = ready(self._batch, copy=True)
            self._versions = self._written(self._ready)
        return dict(self._ready)

    @staticmethod
    def _written(batch: Tensors) -> list[int]:
        """How often each of the rows was written into."""
        return [rows._version for rows in each_rows(batch).values()]


def ready(batch: Tensors, *, copy: bool = False) -> Tensors:
    """A batch on the device with its rows in float32, as heads take it. `copy`: the rows are never its own tensor."""
    if cuts := cuts_in(batch):
        return joined(cuts, [ready(at_cut(batch, cut), copy=copy) for cut in cuts])
    return {"rows": widened(batch, copy=copy), "lengths": batch["lengths"]}


def places_in(members: Indices, chosen: Indices) -> Indices:
    """The places of the chosen ones among the members of a batch."""
    return np.flatnonzero(np.isin(members, chosen))


def subset(batch: Tensors, places: Indices) -> Tensors:
    """Some samples of a batch that is ready, with rows no longer than the longest of them needs."""
    chosen = torch.from_numpy(places)
    part = {name: tensor[chosen.to(tensor.device)] for name, tensor in batch.items()}
    longest = int(part["lengths"].max()) if each_rows(part) else 0
    return {name: tensor[:, :longest] if are_rows(name) else tensor for name, tensor in part.items()}
