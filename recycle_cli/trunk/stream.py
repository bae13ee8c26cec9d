"""Samples as a stream: windows of keyed samples, prepared ahead of the model, in batches by tokens.

The window is what makes this fast: within it samples are sorted by length, so a batch has next to no padding.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from recycle_cli.errors import DataError
from recycle_cli.keys import Bytes16, Sample, keys_of
from recycle_cli.models import Inputs, Prepared, Preprocessor
from recycle_cli.runtime.overlap import prefetch

Indices = npt.NDArray[np.int64]

Lookup = Callable[[Bytes16, Bytes16], Indices]
"""Keys and digests (n, 16) to positions in a store (n,), -1 if absent."""

Reject = Callable[[Sample, DataError], None]
"""Called for a sample that cannot be prepared; raises, or returns to pass over it."""

WINDOW_BYTES = 128 * 2**20
"""Most bytes of content in a window: files of images are a thousand times as large as texts."""

WINDOW_IMAGES = 256
"""Most images in a window: decoded ones are larger still, and as many more are prepared ahead. All have one length, so
that nothing is gained by sorting more of them."""

FIRST_SHARE = 32
GROWTH = 2
"""The first window is 1/32 of the full size and each next one twice as large, so that the trunk starts soon."""


@dataclass(frozen=True)
class Window:
    """Consecutive samples, their keys and digests (n, 16), their positions in the store (n,), -1 if absent."""

    samples: Sequence[Sample]
    keys: Bytes16
    digests: Bytes16
    positions: Indices


@dataclass(frozen=True)
class Usable:
    """A window and the part of it that is ready: the samples at `places` (n,), prepared."""

    window: Window
    places: Indices
    prepared: Sequence[Prepared]


@dataclass(frozen=True)
class TrunkBatch:
    """Model-ready inputs of some samples. `members` are their places in the window they come from."""

    members: Indices
    lengths: Indices
    inputs: Inputs


def windows(
    samples: Iterable[Sample], size: int, lookup: Lookup | None = None, *, first: int | None = None
) -> Iterator[Window]:
    """Cut a stream into windows of `size` samples, fewer if they are large, keyed and looked up.

    `first`: the samples of the first window; each next one has twice as many, up to `size`.
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


def prepared_ahead(
    samples: Iterable[Sample],
    preprocessor: Preprocessor,
    size: int,
    lookup: Lookup | None,
    wanted: Callable[[Window], Indices],
    reject: Reject | None,
    first: int | None = None,
) -> Iterator[Usable]:
    """Windows with their `wanted` samples prepared; a thread prepares the next window while this one is computed.

    `first`: the samples of the first window; by default a small share of the full size.
    """
    if preprocessor.row_cost > 1:
        size = min(size, WINDOW_IMAGES)

    def prepare(window: Window) -> Usable:
        places = wanted(window)
        found, prepared = usable([window.samples[place] for place in places.tolist()], preprocessor, reject)
        return Usable(window, places[found], prepared)

    growing = windows(samples, size, lookup, first=min(size, first or max(1, size // FIRST_SHARE)))
    return prefetch(map(prepare, growing), depth=1)


def trunk_batches(samples: Sequence[Sample], preprocessor: Preprocessor, batch_tokens: int) -> Iterator[TrunkBatch]:
    """Prepare the samples, sort them by length and batch them so that no padded batch exceeds `batch_tokens` tokens."""
    yield from batches_of(*usable(samples, preprocessor), preprocessor, batch_tokens)


def batches_of(
    places: Indices, prepared: Sequence[Prepared], preprocessor: Preprocessor, batch_tokens: int
) -> Iterator[TrunkBatch]:
    """Prepared samples, `places` their places in the window, in batches of like lengths."""
    lengths = preprocessor.lengths(prepared)
    for members in by_token_budget(lengths * preprocessor.row_cost, batch_tokens):
        yield TrunkBatch(places[members], lengths[members], preprocessor.collate([prepared[i] for i in members]))


def usable(
    samples: Sequence[Sample], preprocessor: Preprocessor, reject: Reject | None = None
) -> tuple[Indices, list[Prepared]]:
    """Prepare samples. Returns the places of those that can be prepared, and these prepared."""
    try:
        return np.arange(len(samples)), preprocessor.prepare(samples)
    except DataError:
        if reject is None:
            raise
    places, prepared = [], []
    for place, sample in enumerate(samples):
        try:
            prepared += preprocessor.prepare([sample])
            places.append(place)
        except DataError as error:
            reject(sample, error)
    return np.array(places, dtype=np.int64), prepared


def readable(samples: Sequence[Sample], preprocessor: Preprocessor, reject: Reject) -> Indices:
    """Places of the samples that can be prepared; the others go to `reject`. Prepares WINDOW_IMAGES at a time."""
    starts = range(0, len(samples), WINDOW_IMAGES)
    return np.concatenate(
        [start + usable(samples[start : start + WINDOW_IMAGES], preprocessor, reject)[0] for start in starts]
    )


def by_token_budget(lengths: Indices, budget: int) -> Iterator[Indices]:
    """Places of samples in batches of like lengths, longest first, so that samples x longest stays within the budget.

    With the longest first, too little memory shows at the first batch. A sample over the budget gets its own batch.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        size = max(1, budget // max(1, int(lengths[order[start]])))
        yield order[start : start + size]
        start += size
