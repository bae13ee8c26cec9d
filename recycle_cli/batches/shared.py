"""One batch on the device that several heads take in turn."""

import numpy as np
import torch

from recycle_cli.batches.sampler import Indices
from recycle_cli.batches.source import Tensors
from recycle_cli.batches.stored import widened


class SharedBatch:
    """A batch that heads take in turn: its rows, if it has any, are widened to float32 once for them all.

    A head may write into them (an in-place ReLU): then, and only then, they are widened anew for the next. A single
    head gets the batch's own, if they are float32 already.
    """

    def __init__(self, batch: Tensors, heads: int) -> None:
        self._batch, self._heads = batch, heads
        self._rows: torch.Tensor | None = None
        self._version = 0

    def ready(self) -> Tensors:
        """The batch for the next head, as it was read."""
        if "rows" not in self._batch:
            return self._batch
        rows = widened(self._batch) if self._heads == 1 else self._unwritten()
        return {"rows": rows, "lengths": self._batch["lengths"]}

    def _unwritten(self) -> torch.Tensor:
        """A copy of the rows that no head has written into."""
        if self._rows is None or self._rows._version != self._version:
            # Tensors made in inference mode, as the batch's may be, do not count how often they were written into.
            with torch.inference_mode(False):
                self._rows = widened(self._batch, copy=True)
            self._version = self._rows._version
        return self._rows


def places_in(members: Indices, chosen: Indices) -> Indices:
    """The places of the chosen ones among the members of a batch."""
    return np.flatnonzero(np.isin(members, chosen))


def subset(batch: Tensors, places: Indices) -> Tensors:
    """Some samples of a batch that is ready, with rows no longer than the longest of them needs."""
    chosen = torch.from_numpy(places)
    part = {name: tensor[chosen.to(tensor.device)] for name, tensor in batch.items()}
    return {**part, "rows": part["rows"][:, : int(part["lengths"].max())]} if "rows" in part else part
