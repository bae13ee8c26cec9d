"""What a training or an evaluation reads: stored rows, or raw inputs where there is no store. One shape for all."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import xxhash

from recycle_cli.batches.mixing import Mix, mixed
from recycle_cli.batches.stored import Batch, Epoch, Indices, Loaded, Order, StoredRows, WindowedRows, in_order, widened
from recycle_cli.keys import Sample
from recycle_cli.models import Prepared, SplitModel
from recycle_cli.runtime.memory import free_memory
from recycle_cli.trunk.stream import WINDOW_IMAGES, Reject, usable

WINDOW_BYTES = 4 << 30


@dataclass(frozen=True)
class RawInputs:
    """Prepared inputs of samples, with their lengths (n,): what the whole model reads without a store."""

    split: SplitModel
    prepared: list[Prepared]
    lengths: Indices

    @classmethod
    def of(cls, split: SplitModel, samples: Sequence[Sample]) -> "RawInputs":
        """Tokenise (or decode) all samples once, ahead of the first epoch."""
        prepared = split.prepare(samples)
        return cls(split, prepared, split.preprocessor.lengths(prepared))

    def loaded(self, batches: Sequence[Indices]) -> Iterator[Loaded]:
        """Each batch's members with their padded tensors, in the order given."""
        for members in batches:
            yield members, self.split.collate([self.prepared[place] for place in members])

    def at_epoch(self, epoch: int) -> "RawInputs":
        """The same in every epoch."""
        return self


@dataclass(frozen=True)
class Images:
    """Images decoded anew in each epoch, ahead of the model: all of them decoded would not fit the memory.

    `views`: functions that make of an image its augmented views, of which epoch e gets number e, then from the first on
    again. With as many views as epochs that is augmentation as it is done without a store.
    """

    split: SplitModel
    samples: Sequence[Sample]
    lengths: Indices
    views: Sequence[Callable[[Sample], Sample]] = ()
    view: Callable[[Sample], Sample] | None = None

    @classmethod
    def of(
        cls, split: SplitModel, samples: Sequence[Sample], views: Sequence[Callable[[Sample], Sample]] = ()
    ) -> "Images":
        """These samples, each one row."""
        return cls(split, samples, np.ones(len(samples), dtype=np.int64), views)

    def at_epoch(self, epoch: int) -> "Images":
        """As epoch `epoch` (from 0) sees them."""
        return replace(self, view=self.views[epoch % len(self.views)]) if self.views else self

    def loaded(self, batches: Sequence[Indices]) -> Iterator[Loaded]:
        """Each batch's members with their pixels, in the order given."""
        for members in batches:
            samples = [self.samples[place] for place in members.tolist()]
            yield (
                members,
                self.split.collate(self.split.prepare([self.view(s) for s in samples] if self.view else samples)),
            )


Source = StoredRows | WindowedRows | RawInputs | Images


def stored_source(rows: StoredRows, memory: int | None, *, in_memory: bool = False) -> StoredRows | WindowedRows:
    """How to read rows: from memory, in windows of `memory` bytes, or through the map where that serves best.

    Windows are taken unasked where the store is compressed or remote, or larger than the free memory.
    """
    if in_memory:
        return rows.in_memory()
    if memory is None and not rows.store.prefers_windows(rows.cut):
        return rows
    return WindowedRows(rows, memory or min(WINDOW_BYTES, free_memory() // 4))


def epoch_of(source: Source, order: Order, number: int) -> Epoch:
    """The batches of epoch `number` (from 0), and how they are read."""
    if isinstance(source, WindowedRows):
        return source.epoch(order, number)
    batches = order.batches(source.lengths, number)
    return Epoch(batches, lambda start: source.at_epoch(number).loaded(batches[start:]))


def order_digest(source: Source, order: Order) -> str:
    """What the first epoch's batches are, in short: a resume goes on in an epoch only if they are still the same."""
    return xxhash.xxh3_64_hexdigest(np.concatenate(epoch_of(source, order, 0).batches).tobytes())


def once(source: Source, batch_size: int) -> Iterator[Loaded]:
    """Every sample once, for evaluation: sorted by length where the source can be read in any order."""
    if isinstance(source, WindowedRows):
        return source.epoch(Order(batch_size, seed=0), 0).load(0)
    return source.loaded(in_order(source.lengths, batch_size))


def readable(split: SplitModel, samples: Sequence[Sample], reject: Reject) -> Indices:
    """Places of the samples that can be prepared; the others go to `reject`."""
    starts = range(0, len(samples), WINDOW_IMAGES)
    return np.concatenate(
        [start + usable(samples[start : start + WINDOW_IMAGES], split, reject)[0] for start in starts]
    )


class SharedBatch:
    """A batch on the device that heads take in turn: its rows, if it has any, are widened to float32 once for them all.

    A head may write into them (an in-place ReLU): then, and only then, they are widened anew for the next. One head
    alone gets the batch's own, where they are float32 already.
    """

    def __init__(self, batch: Batch, heads: int) -> None:
        self._batch, self._heads = batch, heads
        self._rows: torch.Tensor | None = None
        self._version = 0

    def ready(self) -> Batch:
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


def subset(batch: Batch, places: Indices) -> Batch:
    """Some samples of a batch that is ready, rows no longer than the longest of them needs."""
    chosen = torch.from_numpy(places)
    part = {name: tensor[chosen.to(tensor.device)] for name, tensor in batch.items()}
    return {**part, "rows": part["rows"][:, : int(part["lengths"].max())]} if "rows" in part else part


def logits_of(
    split: SplitModel, cut: str, batch: Batch, *, mixup: float = 0.0, cutmix: float = 0.0
) -> tuple[torch.Tensor, Mix | None]:
    """The head's logits (B, C) from rows, mixed where asked for, or the whole model's from raw inputs."""
    if "rows" not in batch:
        return split.full(batch), None
    rows, mix = mixed(batch["rows"], mixup=mixup, cutmix=cutmix)
    return split.head_from(cut)(rows, batch["lengths"]), mix
