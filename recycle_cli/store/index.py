"""Map content keys to positions: the keys' sorted high halves beside their positions, searched in batches by NumPy."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recycle_cli.keys import Bytes16
from recycle_cli.store.segment import KEYS, Segment, Summary, fetch_together

Positions = npt.NDArray[np.int64]
Halves = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Level:
    """Sorted high halves of unique keys with their positions: 16 bytes a key, in memory or mapped."""

    high: Halves
    positions: Positions

    def __len__(self) -> int:
        return len(self.high)


MANY = 4096
"""More segments than this do not stay mapped when their keys are indexed."""

_NEAR = 32
_AT_ONCE = 16_384
"""Queries searched at once, few enough for the intermediate arrays to stay in the processor's cache."""

EMPTY = Level(np.empty(0, np.uint64), np.empty(0, np.int64))


def high_half(keys: Bytes16) -> Halves:
    """The first 8 bytes of each key as a big-endian integer, so that the integers sort as the keys do."""
    return np.ascontiguousarray(keys[:, :8]).view(">u8")[:, 0].astype(np.uint64)


class Segments:
    """Segments in a fixed order. Positions number their samples through: segment k owns starts[k] to starts[k + 1]."""

    def __init__(self, segments: Sequence[Segment], samples: Sequence[int]) -> None:
        self.list = list(segments)
        self.starts: Positions = np.concatenate([[0], np.cumsum(np.asarray(samples, np.int64))]).astype(np.int64)
        self.starts_list: list[int] = self.starts.tolist()

    def __len__(self) -> int:
        return int(self.starts[-1])

    def owner(self, positions: Positions) -> Positions:
        """The number of the segment that holds each position."""
        return np.searchsorted(self.starts, positions, side="right") - 1

    def by_segment(self, positions: Positions) -> list[tuple[Segment, Positions, Positions]]:
        """Group positions by segment: (segment, indices into `positions`, sample numbers within the segment)."""
        owners = self.owner(positions)
        order = np.argsort(owners, kind="stable")
        touched, first = np.unique(owners[order], return_index=True)
        stops = [*first[1:].tolist(), len(positions)][: len(touched)]
        return [
            (self.list[owner], part := order[start:stop], positions[part] - self.starts[owner])
            for owner, start, stop in zip(touched.tolist(), first.tolist(), stops, strict=True)
        ]

    def hold(self, positions: Positions) -> npt.NDArray[np.bool_]:
        """Which positions exist. An index on disk may hold anything, so its positions are checked."""
        return (positions >= 0) & (positions < len(self))

    def spans(self, positions: Iterable[int]) -> list[tuple[int, int, int]]:
        """(segment number, first row, end row) of each sample."""
        starts, segments = self.starts_list, self.list
        found = []
        for position in positions:
            number = bisect_right(starts, position) - 1
            local, bounds = position - starts[number], segments[number].bounds
            found.append((number, bounds[local], bounds[local + 1]))
        return found

    def take(self, name: str, positions: Positions) -> Bytes16:
        """Gather the `keys` or `digests` (by `name`) at the positions: (n, 16) uint8."""
        rows = np.empty((len(positions), 16), np.uint8)
        groups = self.by_segment(positions)
        fetch_together([segment for segment, _, _ in groups], name)
        for segment, part, local in groups:
            held = getattr(segment, name)
            segment.require_uncut(name, held)
            rows[part] = np.take(held, local, axis=0)  # ten times as fast as indexing rows
        return rows


def build(segments: Segments, start: int = 0) -> Level:
    """Index the samples of the segments from number `start` on. Of equal keys the first is kept."""
    high = np.concatenate([high_half(keys) for keys in _keys_of(segments.list[start:])] or [EMPTY.high])
    order = np.argsort(high, kind="stable")
    level = Level(high[order], order + segments.starts[start])
    return _unique(level, segments)


def summaries_of(segments: Sequence[Segment]) -> list[Summary]:
    """The summary of each segment. Of a bucket's segments the keys are read as well, many at a time."""
    found = []
    for start in range(0, len(segments), MANY):
        part = segments[start : start + MANY]
        fetch_together(part, KEYS)
        for segment in part:
            _ = segment.specs
            found.append(segment.summary)
            if len(segments) > MANY:  # 20 KB each
                segment.forget("record")
                segment.forget("document")
    return found


def _keys_of(segments: Sequence[Segment]) -> Iterator[Bytes16]:
    """The keys of each segment. Those of many segments, or of a bucket's, are not held any longer."""
    fetch_together(segments, KEYS)
    for segment in segments:
        is_kept = len(segments) <= MANY and segment.place.is_local
        yield segment.keys if is_kept else segment.keys_once()
        if not is_kept:
            segment.forget(KEYS)


def merge(base: Level, delta: Level, segments: Segments) -> Level:
    """Merge two levels into one. If both hold a key, base wins."""
    if not len(base) or not len(delta):
        return base if len(base) else delta
    high = np.concatenate([base.high, delta.high])
    # On two sorted runs a stable sort is a merge, which keeps base's entries before equal ones of delta.
    order = np.argsort(high, kind="stable")
    return _unique(Level(high[order], np.concatenate([base.positions, delta.positions])[order]), segments)


def without(level: Level, base: Level, segments: Segments) -> Level:
    """Drop the entries of `level` whose keys `base` holds."""
    if not len(base) or not len(level):
        return level
    nearest = np.minimum(np.searchsorted(base.high, level.high), len(base) - 1)
    equal = np.flatnonzero(base.high[nearest] == level.high)
    same = _same_keys(base.positions[nearest[equal]], level.positions[equal], segments)
    keep = np.ones(len(level), bool)
    keep[equal[same]] = False
    return level if keep.all() else Level(level.high[keep], level.positions[keep])


def find(level: Level, keys: Bytes16) -> tuple[Positions, Positions]:
    """Find keys by their high halves. Returns (queries, entries): the keys found, and the first entry of each.

    Queries are searched in sorted order, so that neighbours share cache lines and pages of a mapped level.
    """
    if not len(level) or not len(keys):
        return EMPTY.positions, EMPTY.positions
    wanted = high_half(keys)
    order = np.argsort(wanted)
    wanted = wanted[order]
    entries = np.concatenate([search(level.high, wanted[at : at + _AT_ONCE]) for at in range(0, len(order), _AT_ONCE)])
    entries[entries == len(level)] = 0
    hit = level.high[entries] == wanted
    return order[hit], entries[hit]


def search(high: Halves, wanted: Halves) -> Positions:
    """Do as np.searchsorted(high, wanted), three times faster if `high` is spread evenly, as hashes are.

    The value of a hash tells roughly where it lies in the order. Two steps of interpolation come within _NEAR entries
    of nearly all queries, and a binary search of that neighbourhood does the rest. Queries that lie outside it are
    searched in full.
    """
    count = len(high)
    if count <= 4 * _NEAR:
        return np.searchsorted(high, wanted)
    scale = count / 2.0**64
    exact = wanted.astype(np.float64)
    near = np.minimum((exact * scale).astype(np.int64), count - 1)
    for _ in range(2):
        near += ((exact - high[near].astype(np.float64)) * scale).astype(np.int64)
        np.clip(near, 0, count - 1, out=near)
    found = np.clip(near - _NEAR, 0, count - 2 * _NEAR)
    step = _NEAR
    while step:
        found += step * (high[found + step - 1] < wanted)
        step //= 2
    found += high[found] < wanted
    before = (found > 0) & (high[found - 1] >= wanted)
    after = (found < count) & (high[np.minimum(found, count - 1)] < wanted)
    far = np.flatnonzero(before | after)
    found[far] = np.searchsorted(high, wanted[far])
    return found


def next_entries(level: Level, keys: Bytes16, entries: Positions) -> Positions:
    """The entry after each given one if it has the key's high half too, else -1."""
    following = np.minimum(entries + 1, len(level) - 1)
    return np.where((following > entries) & (level.high[following] == high_half(keys)), following, -1)


def equal_rows(first: Bytes16, second: Bytes16) -> npt.NDArray[np.bool_]:
    """Which rows of two (n, 16) arrays are equal, by two integer comparisons a row."""
    left, right = (np.ascontiguousarray(rows).view(np.uint64) for rows in (first, second))
    return (left[:, 0] == right[:, 0]) & (left[:, 1] == right[:, 1])


def among(segment: Segment, wanted: Bytes16) -> npt.NDArray[np.bool_]:
    """Which samples of a segment have one of the keys. Only the few whose first halves fit are compared in full."""
    keys = segment.keys_once()
    mask: npt.NDArray[np.bool_] = np.isin(high_half(keys), high_half(wanted))
    found = np.flatnonzero(mask)
    if len(found):
        mask[found] = np.isin(_whole(keys[found]), _whole(wanted))
    return mask


def _whole(keys: Bytes16) -> npt.NDArray[np.void]:
    """Each key as one value."""
    return np.ascontiguousarray(keys).view("V16")[:, 0]


def _unique(level: Level, segments: Segments) -> Level:
    """Keep the first entry of each key. Different keys that share 64 bits (never seen, 1 in 2^64) both stay."""
    equal = np.flatnonzero(level.high[1:] == level.high[:-1])
    if not len(equal):
        return level
    same = _same_keys(level.positions[equal], level.positions[equal + 1], segments)
    keep = np.ones(len(level), bool)
    keep[equal[same] + 1] = False
    return Level(level.high[keep], level.positions[keep])


def _same_keys(first: Positions, second: Positions, segments: Segments) -> npt.NDArray[np.bool_]:
    """Whether the full keys at two lists of positions are equal. A position that does not exist equals nothing."""
    same = segments.hold(first) & segments.hold(second)
    same[same] = equal_rows(segments.take("keys", first[same]), segments.take("keys", second[same]))
    return same
