"""Read a store in shuffled order by whole chunks: hold randomly chosen runs in a window in memory and shuffle that."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from recycle_cli.recipe import has_scales
from recycle_cli.store.chunked import ChunkedRows
from recycle_cli.store.dtypes import Array
from recycle_cli.store.index import Positions, Segments
from recycle_cli.store.padded import check_shape, padded
from recycle_cli.store.segment import Segment, values_name

WINDOW_SHARE = 0.4
"""Share of the memory budget for each of two windows, the one in use and the one being read. The rest is for chunks
being decoded, samples that a window leaves to the next, pages of the index, and the caller's batches."""

RUNS = 8
"""A window mixes at least this many runs of neighbouring samples; a run is a segment or a part of one."""

_STEP_BYTES = 4 << 20
_STEP_SHARE = 32
"""A step decodes at most one part in so many of a window, so that its memory is small beside the window's."""

_READERS = 2


class RowWindow:
    """Some samples of a store, held in memory. `gather` and `gather_rows` work as the store's own for its `positions`.

    `positions` are in shuffled order, to be used as they come. A window is valid until the next is requested.
    """

    def __init__(self, held: "_Held", positions: Positions) -> None:
        self.positions = positions
        self._held = held

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def lengths(self) -> Positions:
        """The number of rows of each of `positions`."""
        return np.diff(self._held.spans(self.positions))[:, 0]

    def gather(self, positions: Positions) -> tuple[Array, npt.NDArray[np.float32] | None]:
        """Gather samples of this window into a batch padded with zeros, with the shapes of Store.gather."""
        held = self._held
        spans = [(0, start, stop) for start, stop in held.spans(positions).tolist()]
        values = padded(spans, {0: held.values}, held.values.shape[1:], held.values.dtype)
        return values, None if held.scales is None else padded(spans, {0: held.scales}, (), held.scales.dtype)

    def gather_rows(self, positions: Positions) -> tuple[Array, npt.NDArray[np.float32] | None]:
        """Gather rows of samples of this window one after another, with the shapes of Store.gather_rows."""
        held = self._held.only(positions)
        return held.values, held.scales

    def _release(self) -> None:
        """Free the memory even if the caller still holds the window."""
        self._held = _Held(self.positions[:0], np.zeros(1, np.int64), self._held.values[:0].copy(), None)


class _Held:
    """Samples in memory, in the order in which they were read: sample i has rows bounds[i] to bounds[i + 1]."""

    def __init__(
        self, positions: Positions, bounds: Positions, values: Array, scales: npt.NDArray[np.float32] | None
    ) -> None:
        self.positions, self.bounds, self.values, self.scales = positions, bounds, values, scales
        self._order = np.argsort(positions, kind="stable")
        self._sorted = positions[self._order]

    def spans(self, positions: Positions) -> npt.NDArray[np.int64]:
        """First row and end row of each sample: (n, 2)."""
        found = np.searchsorted(self._sorted, positions)
        assert (self._sorted[np.minimum(found, len(self._sorted) - 1)] == positions).all(), "not of this window"
        slots = self._order[found]
        return np.stack([self.bounds[slots], self.bounds[slots + 1]], axis=1)

    def only(self, positions: Positions) -> "_Held":
        """Copy some of the samples."""
        spans = self.spans(positions)
        bounds = np.concatenate([[0], np.cumsum(spans[:, 1] - spans[:, 0])])
        pieces = spans.tolist()
        values = np.concatenate([self.values[:0], *(self.values[start:stop] for start, stop in pieces)])
        if self.scales is None:
            return _Held(positions, bounds, values, None)
        scales = np.concatenate([self.scales[:0], *(self.scales[start:stop] for start, stop in pieces)])
        return _Held(positions, bounds, values, scales)


@dataclass(frozen=True, slots=True)
class _Run:
    """Neighbouring samples of one segment, in their order there, with their first rows and end rows."""

    segment: Segment
    positions: Positions
    starts: Positions
    stops: Positions

    @property
    def lengths(self) -> Positions:
        return self.stops - self.starts

    @property
    def rows(self) -> int:
        return int(self.lengths.sum())


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """A window before it is read: its runs, the positions it yields in shuffled order, and those left to the next."""

    runs: list[_Run]
    positions: Positions
    left: Positions


def plan_windows(
    segments: Segments, cut: str, positions: Positions, memory: int | None, seed: int | Sequence[int], batch_size: int
) -> list[WindowPlan]:
    """Plan the windows of one epoch over `positions` without reading anything.

    A segment that fits is read whole, so that each chunk is decoded once. Of a segment that is read in parts, a chunk
    at the boundary of two parts is decoded twice.
    """
    rng = np.random.default_rng(seed)
    budget = None if memory is None else int(memory * WINDOW_SHARE)
    shared = list(_planned(segments, cut, positions, budget, rng))
    plans: list[WindowPlan] = []
    left = positions[:0]
    for number, runs in enumerate(shared, 1):
        order = rng.permutation(np.concatenate([left, *(run.positions for run in runs)]))
        # One whole batch more is left to the next window, so that the last never ends in a batch of its own.
        whole = len(order) if number == len(shared) else max(0, len(order) // batch_size - 1) * batch_size
        left = order[whole:]
        plans.append(WindowPlan(runs, order[:whole], left))
    return plans


def read_windows(plans: Sequence[WindowPlan], cut: str) -> Iterator[RowWindow]:
    """Read the planned windows in turn, each while the one before it is in use."""
    if not plans:
        return
    with ThreadPoolExecutor(1) as ahead, ThreadPoolExecutor(_READERS) as readers:
        held = _load(plans[0].runs, cut, None, readers)
        for plan, after in pairwise(plans):
            coming = ahead.submit(_load, after.runs, cut, held.only(plan.left), readers)
            window = RowWindow(held, plan.positions)
            del held
            yield window
            window._release()
            held = coming.result()
        yield RowWindow(held, plans[-1].positions)


def _load(runs: list["_Run"], cut: str, left: _Held | None, readers: ThreadPoolExecutor) -> _Held:
    """Read runs into memory, behind the samples that the window before left."""
    before = left.positions if left is not None else runs[0].positions[:0]
    lengths = [np.diff(left.bounds)] if left is not None else []
    positions = np.concatenate([before, *(run.positions for run in runs)])
    bounds = np.concatenate([[0], np.cumsum(np.concatenate([*lengths, *(run.lengths for run in runs)]))])
    spec = runs[0].segment.specs[values_name(cut)]
    for run in runs:
        check_shape(run.segment.row_shape(cut), spec.row_shape)
    values = np.empty((int(bounds[-1]), *spec.shape[1:]), spec.dtype)
    scales = np.empty(len(values), np.float32) if has_scales(runs[0].segment.dtype) else None
    if left is not None:
        values[: len(left.values)] = left.values
        if scales is not None and left.scales is not None:
            scales[: len(left.values)] = left.scales
    step = min(_STEP_BYTES, values.nbytes // _STEP_SHARE)
    firsts = np.cumsum([0 if left is None else len(left.values), *(run.rows for run in runs)]).tolist()
    jobs = [
        readers.submit(
            _read, run, cut, step, values[first : first + run.rows], None if scales is None else scales[first:]
        )
        for run, first in zip(runs, firsts[:-1], strict=True)
    ]
    for job in jobs:
        job.result()
    return _Held(positions, bounds, values, scales)


def _read(run: "_Run", cut: str, step: int, values: Array, scales: Array | None) -> None:
    """Copy out the rows of the run's samples: decode each chunk that holds some once, about `step` bytes at a time."""
    rows = run.segment.chunked_values(cut)
    filled = 0
    at = 0
    carried: tuple[int, Array] = (-1, values[:0])
    per_step = max(1, step // (rows.chunk_rows * _row_bytes(run.segment, cut)))
    starts, stops = run.starts.tolist(), run.stops.tolist()
    while at < len(starts):
        first = starts[at] // rows.chunk_rows
        end = at
        while end < len(starts) and (end == at or (stops[end] - 1) // rows.chunk_rows < first + per_step):
            if end > at and starts[end] // rows.chunk_rows > -(-max(stops[end - 1], 1) // rows.chunk_rows):
                break  # do not read the chunks between, which hold none of our samples
            end += 1
        last = max(first, (max(stops[end - 1], 1) - 1) // rows.chunk_rows) + 1
        block = _decoded(rows, first, last, carried)
        for start, stop in zip(starts[at:end], stops[at:end], strict=True):
            low = start - first * rows.chunk_rows
            values[filled : filled + stop - start] = block[low : low + stop - start]
            if scales is not None:
                scales[filled : filled + stop - start] = run.segment.scales(cut)[start:stop]
            filled += stop - start
        carried = (last - 1, block[(last - 1 - first) * rows.chunk_rows :])
        at = end


def _decoded(rows: ChunkedRows, first: int, last: int, carried: tuple[int, Array]) -> Array:
    """Decode chunks `first` to `last` (exclusive). The first is copied if the step before has decoded it."""
    block = np.empty(((last - first) * rows.chunk_rows, *rows.shape[1:]), rows.dtype)
    skip = 0
    if carried[0] == first:
        block[: rows.chunk_rows] = carried[1]
        skip = 1
    if first + skip < last:
        rows.read_into(first + skip, last, block[skip * rows.chunk_rows :])
    return block


def _planned(
    segments: Segments, cut: str, positions: Positions, budget: int | None, rng: np.random.Generator
) -> Iterator[list[_Run]]:
    """Yield the runs that share a window, drawn at random until the budget is full."""
    limit = None if budget is None else max(1, budget // RUNS)
    runs = [run for segment in _runs(segments, positions) for run in _parts(segment, cut, limit)]
    chosen: list[_Run] = []
    filled = 0
    for number in rng.permutation(len(runs)):
        size = runs[number].rows * _row_bytes(runs[number].segment, cut)
        if chosen and budget is not None and filled + size > budget:
            yield chosen
            chosen, filled = [], 0
        chosen.append(runs[number])
        filled += size
    if chosen:
        yield chosen


def _runs(segments: Segments, positions: Positions) -> Iterator[_Run]:
    """One run for each segment that holds some of the positions."""
    for segment, part, local in segments.by_segment(positions):
        order = np.argsort(local, kind="stable")
        local = local[order]
        yield _Run(segment, positions[part[order]], segment.offsets[local], segment.offsets[local + 1])


def _parts(run: _Run, cut: str, limit: int | None) -> Iterator[_Run]:
    """Cut the run into parts of at most `limit` bytes, with at least one sample each."""
    if limit is None:
        yield run
        return
    ends = np.cumsum(run.stops - run.starts) * _row_bytes(run.segment, cut)
    first = 0
    while first < len(ends):
        before = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, before + limit, side="right")))
        yield _Run(run.segment, run.positions[first:last], run.starts[first:last], run.stops[first:last])
        first = last


def _row_bytes(segment: Segment, cut: str) -> int:
    return segment.specs[values_name(cut)].row_bytes
