"""The frozen trunk over a stream: windows of keyed samples, what the store lacks, batches by tokens, rows.

The window is what makes this fast: within it samples are sorted by length, so a batch has next to no padding.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch

from recycle_cli.errors import DataError
from recycle_cli.keys import Bytes16, Sample, keys_of
from recycle_cli.models import Prepared, SplitModel
from recycle_cli.runtime.overlap import prefetch
from recycle_cli.store import Encoded, decode, encode

Indices = npt.NDArray[np.int64]

Lookup = Callable[[Bytes16, Bytes16], Indices]
"""Keys and digests (n, 16) to positions in a store (n,), -1 where absent."""

Reject = Callable[[Sample, DataError], None]
"""Told of a sample that cannot be prepared; raises, or returns where it is to be passed over."""

WINDOW_BYTES = 128 * 2**20
"""Content that a window holds at most: files of images are a thousand times as large as texts."""

WINDOW_IMAGES = 256
"""Images prepared at once, while as many more are under way: decoded, they are larger still, and of one length."""

GROWTH = 2
FIRST_SHARE = 32
"""The first window is so small a part of the others, the next ones double: the trunk need not wait for long."""

_TORCH_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


@dataclass(frozen=True)
class Window:
    """Consecutive samples, their keys and digests (n, 16), their positions in the store (n,), -1 where absent."""

    samples: Sequence[Sample]
    keys: Bytes16
    digests: Bytes16
    positions: Indices


@dataclass(frozen=True)
class Usable:
    """A window and what is ready of it: the samples at `places` (n,), prepared."""

    window: Window
    places: Indices
    prepared: Sequence[Prepared]


@dataclass(frozen=True)
class TrunkBatch:
    """Model-ready inputs of some samples. `members` are their places in the window they come from."""

    members: Indices
    lengths: Indices
    inputs: dict[str, torch.Tensor]


def windows(
    samples: Iterable[Sample], size: int, lookup: Lookup | None = None, *, first: int | None = None
) -> Iterator[Window]:
    """Cut a stream into windows of `size` samples, fewer where they are large, keyed and looked up.

    `first`: samples of the first window, from which the size doubles until it is reached.
    """
    stream, now = iter(samples), first or size
    while chunk := list(_up_to(stream, min(now, size))):
        now *= GROWTH
        keys, digests = keys_of(chunk)
        absent = np.full(len(chunk), -1, dtype=np.int64)
        yield Window(chunk, keys, digests, absent if lookup is None else lookup(keys, digests))


def _up_to(stream: Iterator[Sample], size: int) -> Iterator[Sample]:
    held = 0
    for sample in islice(stream, size):
        yield sample
        held += sum(len(content) for content in sample.fields.values())
        if held >= WINDOW_BYTES:
            return


def window_size(split: SplitModel, size: int) -> int:
    """Samples a window for what the model takes."""
    return min(size, WINDOW_IMAGES) if split.preprocessor.row_cost > 1 else size


def prepared_ahead(
    samples: Iterable[Sample],
    split: SplitModel,
    size: int,
    lookup: Lookup | None,
    wanted: Callable[[Window], Indices],
    reject: Reject | None,
) -> Iterator[Usable]:
    """Windows with their `wanted` samples prepared, the next one by a thread while this one is computed."""
    size = window_size(split, size)

    def prepare(window: Window) -> Usable:
        places = wanted(window)
        found, prepared = usable([window.samples[place] for place in places.tolist()], split, reject)
        return Usable(window, places[found], prepared)

    cut = windows(samples, size, lookup, first=max(1, size // FIRST_SHARE))
    return prefetch(map(prepare, cut), depth=1)


def trunk_batches(samples: Sequence[Sample], split: SplitModel, batch_tokens: int) -> Iterator[TrunkBatch]:
    """Prepare the samples, sort them by length and batch them so that no padded batch exceeds `batch_tokens` tokens."""
    yield from batches_of(*usable(samples, split), split, batch_tokens)


def batches_of(
    places: Indices, prepared: Sequence[Prepared], split: SplitModel, batch_tokens: int
) -> Iterator[TrunkBatch]:
    """Prepared samples, `places` their places in the window, in batches of like lengths."""
    lengths = split.preprocessor.lengths(prepared)
    for members in by_token_budget(lengths * split.preprocessor.row_cost, batch_tokens):
        yield TrunkBatch(places[members], lengths[members], split.collate([prepared[i] for i in members]))


def usable(
    samples: Sequence[Sample], split: SplitModel, reject: Reject | None = None
) -> tuple[Indices, list[Prepared]]:
    """The samples that can be prepared: their places, and what they become."""
    try:
        return np.arange(len(samples)), split.prepare(samples)
    except DataError:
        if reject is None:
            raise
    places, prepared = [], []
    for place, sample in enumerate(samples):
        try:
            prepared += split.prepare([sample])
            places.append(place)
        except DataError as error:
            reject(sample, error)
    return np.array(places, dtype=np.int64), prepared


def by_token_budget(lengths: Indices, budget: int) -> Iterator[Indices]:
    """Places of samples in batches of like lengths, longest first, so that samples x longest stays within the budget.

    Longest first: where memory does not suffice, it shows at the first batch. A sample over the budget goes alone.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        size = max(1, budget // max(1, int(lengths[order[start]])))
        yield order[start : start + size]
        start += size


def rows_of(activations: torch.Tensor, lengths: Indices, dtype: str) -> Encoded:
    """Ragged rows in the stored dtype from padded activations (B, L, *shape): the first `lengths[i]` rows of each.

    Raises DataError, naming the value and the remedy, where float16 cannot hold a value or a value is not finite.
    """
    steps = torch.arange(activations.shape[1], device=activations.device)
    inside = steps[None, :] < torch.from_numpy(lengths).to(activations.device)[:, None]
    rows = activations[inside]
    if dtype not in ("float16", "bfloat16"):
        return encode(rows.float().cpu().numpy(), dtype)
    narrow = rows.to(_TORCH_DTYPES[dtype])
    if not torch.isfinite(narrow).all():
        return encode(rows.float().cpu().numpy(), dtype)
    bits = narrow.view(torch.uint16) if dtype == "bfloat16" else narrow
    return Encoded(bits.cpu().numpy(), None)


def restored(rows: Encoded, lengths: Indices, dtype: str) -> torch.Tensor:
    """Padded float32 activations (B, L, *shape) from ragged stored rows: what the head sees, hit or miss."""
    values = torch.from_numpy(decode(rows.values, rows.scales, dtype))
    pieces = list(torch.split(values, lengths.tolist()))
    return torch.nn.utils.rnn.pad_sequence(pieces, batch_first=True)


def check_lengths(batch: TrunkBatch, activations: torch.Tensor) -> None:
    """Guard against a model that changes the number of rows behind our back."""
    if activations.shape[1] < int(batch.lengths.max()):
        raise DataError(
            f"the trunk gave {activations.shape[1]} rows where {int(batch.lengths.max())} went in; "
            "this model shortens its sequence and cannot be recycled"
        )
