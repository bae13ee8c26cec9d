"""Open a store, find samples by content, and read their rows at the speed of a memory map."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import copy
from pathlib import Path
from time import perf_counter
from typing import Self

import numpy as np
import numpy.typing as npt

import recycle_cli.store.indexfile as indexfile
from recycle_cli.errors import DamageError, MismatchError, StorageError, StoreError, UsageError
from recycle_cli.keys import KEY_BYTES, Bytes16
from recycle_cli.recipe import Recipe, has_scales, row_bytes, stored_shape
from recycle_cli.runtime.memory import free_memory
from recycle_cli.store.codecs import CodecName
from recycle_cli.store.dtypes import Array, numpy_dtype
from recycle_cli.store.files import require_uncut, storage_errors
from recycle_cli.store.index import (
    EMPTY,
    Level,
    Positions,
    Segments,
    build,
    equal_rows,
    find,
    merge,
    next_entries,
    summaries_of,
    without,
)
from recycle_cli.store.origins import NOT_SAID, Origins
from recycle_cli.store.padded import check_shape, padded
from recycle_cli.store.place import Place
from recycle_cli.store.places import open_place
from recycle_cli.store.root import create_root, read_root
from recycle_cli.store.segment import Segment, Summary, origins_of, scales_name, values_name
from recycle_cli.store.windows import RowWindow, WindowPlan, plan_windows, read_windows
from recycle_cli.store.writer import SEGMENT_BYTES, SEGMENT_SECONDS, SegmentWriter

_LOOKS, _LONGEST = 100, 0.02


class Store:
    """The sealed segments of one recipe at one place, as they were when the store was opened or last refreshed."""

    def __init__(self, path: str, place: Place, recipe: Recipe, provenance: Mapping[str, str]) -> None:
        self.path = path
        self.place = place
        self.recipe = recipe
        self.fingerprint = recipe.fingerprint
        self.provenance = dict(provenance)
        self.stored_dtype = numpy_dtype(recipe.dtype)
        self._scaled = has_scales(recipe.dtype)
        self._known: dict[str, Segment] = {}
        self._segments = Segments([], [])
        self._summaries: list[Summary] = []
        self._base = self._delta = EMPTY
        self._next_look = 0.0
        self.refresh()

    @classmethod
    def create_or_open(cls, path: str, recipe: Recipe, provenance: Mapping[str, str]) -> Self:
        """Open the store at `path`, or make it. Raises MismatchError, which names the field that differs."""
        place = open_place(path)
        create_root(place, recipe, provenance)
        try:
            return cls(path, place, *read_root(place, recipe, provenance.get("model")))
        except MismatchError as error:
            if len(cls.open(path)):
                raise
            raise MismatchError(f"{error}; it holds no samples yet, so it can be removed") from None

    @classmethod
    def open(cls, path: str, recipe: Recipe | None = None) -> Self:
        """Open the store at `path`. Raises StoreError if there is none, MismatchError if its recipe differs."""
        place = open_place(path)
        return cls(path, place, *read_root(place, recipe))

    def __len__(self) -> int:
        """The number of unique samples."""
        return len(self._base) + len(self._delta)

    @property
    def copies(self) -> int:
        """Stored samples beyond the unique ones: several writers computed the same content at the same time."""
        return sum(summary.samples for summary in self._summaries) - len(self)

    @property
    def rows(self) -> int:
        """The number of stored rows of one cut, including samples that several writers stored."""
        return sum(summary.rows for summary in self._summaries)

    @property
    def bytes(self) -> int:
        """Bytes of all sealed segments, including samples that several writers stored."""
        return sum(summary.bytes for summary in self._summaries)

    @property
    def codec(self) -> CodecName:
        """The codec of the newest segment; `none` if the store is empty."""
        newest = max(self.segments, key=lambda segment: segment.id, default=None)
        return "none" if newest is None else newest.codec

    @property
    def segments(self) -> list[Segment]:
        """The sealed segments in the order of their positions."""
        return self._segments.list

    @property
    def origins(self) -> Origins:
        """How the samples were made of records; with `?` if not all segments say it."""
        return origins_of(self.segments)

    def by_age(self) -> Segments:
        """The segments from oldest to newest, whatever order the index gives them."""
        ordered = sorted(self.segments, key=lambda segment: segment.id)
        return Segments(ordered, [segment.summary.samples for segment in ordered])

    def refresh(self) -> None:
        """Take notice of segments sealed or removed since the store was opened. Positions change."""
        with storage_errors(self.path):
            names = self.place.segment_names()
            while True:
                try:
                    return self._index(names)
                except StoreError:
                    # `gc` may remove a segment meanwhile (it seals its replacement first), and others may put folders
                    # of their own among the segments: then go on without them.
                    names, before = list(filter(self.place.is_segment, self.place.segment_names())), names
                    if set(names).issuperset(before):
                        raise

    def as_it_is_now(self) -> Self:
        """The same store with the segments that it has now; this one stays as it is, for those who hold positions."""
        other = copy(self)
        other._known = dict(self._known)
        other.refresh()
        return other

    def segments_of(self, positions: Positions) -> list[str]:
        """The ids of the segments that hold these positions, each once."""
        return [self._segments.list[number].id for number in np.unique(self._segments.owner(positions)).tolist()]

    def _index(self, names: list[str]) -> None:
        is_local = self.place.is_local
        stored = indexfile.load(Path(self.place.where("")), names) if is_local else self._as_before(names)
        known, base = stored or ([], EMPTY)
        covered = {summary.id for summary in known}
        fresh = [self._segment(name) for name in names if name not in covered]
        self._summaries = [*known, *summaries_of(fresh)]
        self._segments = Segments(
            [*(self._segment(summary.id) for summary in known), *fresh],
            [summary.samples for summary in self._summaries],
        )
        delta = build(self._segments, len(known)) if fresh else EMPTY
        self._base, self._delta = self._keep(base, without(delta, base, self._segments))

    def _as_before(self, names: list[str]) -> tuple[list[Summary], Level] | None:
        """The segments of the last refresh with their index, if all of them are still there: a bucket has no index."""
        if not self._summaries or not {summary.id for summary in self._summaries}.issubset(names):
            return None
        return self._summaries, merge(self._base, self._delta, self._segments)

    def lookup(self, keys: Bytes16, digests: Bytes16) -> Positions:
        """Find samples by keys and digests (n, 16). Returns positions (n,) int64, -1 if the store lacks the sample.

        Raises DamageError if a key is stored with another digest: damage, or a collision made on purpose.
        """
        assert keys.shape == digests.shape == (len(keys), KEY_BYTES), f"keys {keys.shape}, digests {digests.shape}"
        return self._search(keys, digests)

    def find(self, keys: Bytes16) -> Positions:
        """Find samples by their keys alone, for keys that came from this store; otherwise like `lookup`."""
        return self._search(keys, None)

    def positions(self) -> Positions:
        """Positions of all unique samples in the order of the store. Raises DamageError if the index is wrong."""
        positions = np.sort(np.concatenate([self._base.positions, self._delta.positions]))
        outside = len(positions) and not self._segments.hold(positions[[0, -1]]).all()
        if outside or (positions[1:] == positions[:-1]).any():
            raise DamageError(f"{self.path}: the index does not fit the segments; run `recycle store verify --repair`")
        return positions

    def keys(self, positions: Positions) -> Bytes16:
        """Keys of the samples at the positions: (n, 16) uint8."""
        return self._segments.take("keys", positions)

    def lengths(self, positions: Positions) -> Positions:
        """The number of rows of each sample: (n,) int64."""
        lengths = np.empty(len(positions), np.int64)
        for segment, part, local in self._segments.by_segment(np.asarray(positions, np.int64)):
            lengths[part] = segment.offsets[local + 1] - segment.offsets[local]
        return lengths

    def row_shape(self, cut: str) -> tuple[int, ...]:
        """Shape of one row of `cut`. Raises StorageError if the store is empty."""
        self._known_cut(cut)
        if not self._segments.list:
            raise StorageError(f"{self.path}: no sealed samples yet; run `recycle precompute` first")
        return self._segments.list[0].row_shape(cut)

    def stored_shape(self, cut: str) -> tuple[int, ...]:
        """Shape of one row of `cut` as it is stored and read: its own, but for int4 that of its packed bytes."""
        return stored_shape(self.row_shape(cut), self.recipe.dtype)

    def row_bytes(self, cut: str) -> int:
        """Bytes of one stored row of `cut`, with its scale."""
        return row_bytes(self.row_shape(cut), self.recipe.dtype)

    def read(self, cut: str, position: int) -> Array:
        """Rows (length, *stored_shape) of one sample as stored, as a read-only view of the map if there is one."""
        self._known_cut(cut)
        segment, start, stop = self._place(int(position))
        if perf_counter() >= self._next_look:
            self._look(cut, (segment,))
        return segment.values(cut)[start:stop]

    def gather(self, cut: str, positions: Positions) -> tuple[Array, npt.NDArray[np.float32] | None]:
        """Gather samples into a batch padded with zeros to the longest: (n, L, *stored_shape) and any scales (n, L)."""
        self._known_cut(cut)
        spans = self._segments.spans(positions.tolist())
        segments, touched = self._segments.list, {number for number, _, _ in spans}
        if perf_counter() >= self._next_look:
            self._look(cut, (segments[number] for number in touched))
        self._check_shapes(cut, (segments[number] for number in touched))
        rows = {number: segments[number].values(cut) for number in touched}
        values = padded(spans, rows, self.stored_shape(cut), self.stored_dtype)
        if not self._scaled:
            return values, None
        scales = {number: segments[number].scales(cut) for number in touched}
        return values, padded(spans, scales, (), np.dtype("<f4"))

    def gather_rows(self, cut: str, positions: Positions) -> tuple[Array, npt.NDArray[np.float32] | None]:
        """Gather the rows of samples one after another: (sum of lengths, *stored_shape) and any scales (sum,)."""
        places = [self._place(position) for position in np.asarray(positions).tolist()]
        if perf_counter() >= self._next_look:
            self._look(cut, {segment.id: segment for segment, _, _ in places}.values())
        self._check_shapes(cut, {segment.id: segment for segment, _, _ in places}.values())
        total = sum(stop - start for _, start, stop in places)
        values = np.empty((total, *self.stored_shape(cut)), self.stored_dtype)
        scales = np.empty(total, np.float32) if self._scaled else None
        filled = 0
        for segment, start, stop in places:
            after = filled + stop - start
            values[filled:after] = segment.values(cut)[start:stop]
            if scales is not None:
                scales[filled:after] = segment.scales(cut)[start:stop]
            filled = after
        return values, scales

    def is_mapped(self, cut: str) -> bool:
        """Whether all rows of the cut are read from a memory map."""
        return self.place.is_local and all(
            segment.specs[values_name(cut)].compressor is None for segment in self.segments
        )

    def prefers_windows(self, cut: str) -> bool:
        """Whether shuffled reading should use `windows`: rows are not mapped, or the store exceeds the free memory."""
        return not self.is_mapped(cut) or self.bytes > free_memory()

    def windows(
        self,
        cut: str,
        positions: Positions,
        *,
        memory: int | None,
        seed: int | Sequence[int],
        batch_size: int = 1,
        planned_by: str | None = None,
    ) -> Iterator[RowWindow]:
        """Read all samples once, in shuffled windows that fit `memory` bytes; the next window is read in advance.

        A window gathers its own positions as the store does. All windows but the last hold whole batches. Without
        `memory` one window holds everything. The same seed gives the same order. `planned_by`: the cut whose rows
        fill the memory, if several are read in the same windows.
        """
        plans = self.plan_windows(planned_by or cut, positions, memory=memory, seed=seed, batch_size=batch_size)
        return read_windows(plans, cut)

    def plan_windows(
        self, cut: str, positions: Positions, *, memory: int | None, seed: int | Sequence[int], batch_size: int = 1
    ) -> list[WindowPlan]:
        """Plan the windows that `windows` reads with the same arguments, each with its `positions`; nothing is read."""
        self._known_cut(cut)
        return plan_windows(self._segments, cut, np.asarray(positions, np.int64), memory, seed, batch_size)

    def writer(
        self,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        segment_seconds: float = SEGMENT_SECONDS,
        codec: str = "none",
        max_disk: int | None = None,
        origins: Origins = NOT_SAID,
    ) -> SegmentWriter:
        """Make a writer of new segments. This store sees a sealed segment after the next `refresh`.

        `codec` is none, lz4, zstd or auto (measured on the first rows); `max_disk` limits the bytes of the store;
        `origins` say how the samples were made of records, for `remove`.
        """
        return SegmentWriter(
            self.place,
            self.recipe,
            segment_bytes=segment_bytes,
            segment_seconds=segment_seconds,
            codec=codec,
            max_disk=max_disk,
            origins=origins,
        )

    def _check_shapes(self, cut: str, segments: Iterable[Segment]) -> None:
        """Raise DamageError unless these segments' rows have one shape; packed rows of two may have as many bytes."""
        expected = self.row_shape(cut)
        for segment in segments:
            check_shape(segment.row_shape(cut), expected)

    def _look(self, cut: str, segments: Iterable[Segment]) -> None:
        """Raise DamageError if a mapped file of these segments was cut short, since reading it would end the process.

        The next look is due only when a hundred times as long has passed, but after `_LONGEST` seconds at most: reads
        in quick succession are as fast as without it. Whoever reads asks whether one is due, which costs no call.
        """
        arrays = [(segment, values_name(cut), segment.values(cut)) for segment in segments]
        if self._scaled:
            arrays += [(segment, scales_name(cut), segment.scales(cut)) for segment, _, _ in arrays]
        began = perf_counter()
        for segment, name, array in arrays:
            segment.require_uncut(name, array)
        ended = perf_counter()
        self._next_look = ended + min(_LOOKS * (ended - began), _LONGEST)

    def _search(self, keys: Bytes16, digests: Bytes16 | None) -> Positions:
        found = np.full(len(keys), -1, np.int64)
        for level in (self._base, self._delta):
            for array in (level.high, level.positions):
                require_uncut(array, f"{self.path}: the index")
            missing = np.flatnonzero(found < 0)
            queries, entries = find(level, keys if len(missing) == len(keys) else keys[missing])
            self._confirm(level, keys, digests, missing[queries], entries, found)
        return found

    def _confirm(
        self,
        level: Level,
        keys: Bytes16,
        digests: Bytes16 | None,
        queries: Positions,
        entries: Positions,
        found: Positions,
    ) -> None:
        """Write to `found` the candidates whose digests (or keys), as read from the segments, are the wanted ones."""
        name, wanted = ("keys", keys) if digests is None else ("digests", digests)
        while len(queries):
            positions = level.positions[entries]
            inside = self._segments.hold(positions)
            queries, entries, positions = queries[inside], entries[inside], positions[inside]
            same = equal_rows(self._segments.take(name, positions), wanted[queries])
            found[queries[same]] = positions[same]
            queries, entries, positions = queries[~same], entries[~same], positions[~same]
            bad = equal_rows(self._segments.take("keys", positions), keys[queries])
            if bad.any():
                raise DamageError(
                    f"{self.path}: key {keys[queries[bad][0]].tobytes().hex()} is stored with another digest (damage, "
                    f"or a collision made on purpose); run `recycle store verify --repair`"
                )
            following = next_entries(level, keys[queries], entries)
            queries, entries = queries[following >= 0], following[following >= 0]

    def _segment(self, name: str) -> Segment:
        return self._known.setdefault(name, Segment(self.place, name, self.fingerprint, self.recipe.dtype))

    def _keep(self, base: Level, delta: Level) -> tuple[Level, Level]:
        """Merge both levels and save them if sorting the delta at each opening would cost more than that."""
        if not self.place.is_local or len(delta) < max(indexfile.PERSIST_SAMPLES, len(base) // 8):
            return base, delta
        merged = merge(base, delta, self._segments)
        path = Path(self.place.where(""))
        with suppress(OSError):  # a store on a read-only or full disk can still be read
            indexfile.save(path, self._summaries, merged)
            stored = indexfile.load(path, [summary.id for summary in self._summaries])
            if stored is not None and stored[0] == self._summaries:
                return stored[1], EMPTY  # the saved index is mapped, so it need not stay in memory
        return merged, EMPTY

    def _place(self, position: int) -> tuple[Segment, int, int]:
        """The segment of a position, its first row there, and its end row."""
        owner = bisect_right(self._segments.starts_list, position) - 1
        segment, local = self._segments.list[owner], position - self._segments.starts_list[owner]
        return segment, segment.bounds[local], segment.bounds[local + 1]

    def _known_cut(self, cut: str) -> None:
        if cut not in self.recipe.cuts:
            raise UsageError(f"{self.path}: no cut {cut!r}; the store has {', '.join(self.recipe.cuts)}")
