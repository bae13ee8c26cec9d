"""Verify a store: read every byte, report damage down to the byte range, and set damaged parts aside on request."""

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from recycle_cli.errors import DamageError, GoneError, RecycleError, StoreError
from recycle_cli.runtime.threads import usable_cores
from recycle_cli.store.dtypes import is_finite
from recycle_cli.store.files import BLOCK_BYTES
from recycle_cli.store.index import Level, Segments, high_half
from recycle_cli.store.indexfile import load_one
from recycle_cli.store.layout import DOCUMENT, INDEX, SEGMENTS, ArraySpec, dumps, group_document, is_name, loads
from recycle_cli.store.place import LINK, Place
from recycle_cli.store.places import open_place
from recycle_cli.store.root import GROUPS, check_version, read_root
from recycle_cli.store.rowarray import shard_index
from recycle_cli.store.segment import Rows, Segment, scales_name, values_name

Progress = Callable[[int, int], None]
"""Called with the bytes read so far and the total."""

_DIGITS = 16


@dataclass(frozen=True, slots=True)
class Damage:
    """A deviation from what was sealed, in bytes `start` to `stop` of `file`; both are None if no range is known."""

    segment: str
    file: str
    problem: str
    start: int | None = None
    stop: int | None = None


def verify(
    path: str, *, repair: bool = False, workers: int | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Check every file of the sealed segments against its recorded size and checksums.

    Returns {store, segments, bytes, damaged: [{segment, file, problem, start, stop}], set_aside: [...], seconds}.
    With `repair`, damaged segments move to `damaged/`, and the next precompute fills in only what they held. A damaged
    root moves there too, and the next precompute makes it anew from its recipe.
    Raises StoreError if `path` is no store, StorageError if another maintenance is running.
    """
    began = time.perf_counter()
    place = open_place(path)
    had_root = place.is_store()
    found = _root_damage(place)
    segments = _segments(place)
    total = sum(_to_read(place, place.listing(segment.id)) for segment in segments)
    meter = _Meter(progress, total)
    with ThreadPoolExecutor(workers or usable_cores()) as pool:
        for damages in pool.map(lambda segment: check_segment(segment, meter), segments):
            found += damages
    damaged = {damage.segment for damage in found}
    if place.is_local:
        found += _index_damage(Path(place.where("")), [segment for segment in segments if segment.id not in damaged])
    bad = sorted({damage.segment for damage in found})
    if repair and bad:
        # If the root was missing, a precompute may have made one by now: leave that alone.
        names = [name for name in bad if name != DOCUMENT or had_root]
        place.set_aside([name if name in _parts(found) else f"{SEGMENTS}/{name}" for name in names])
    return {
        "store": path,
        "segments": len(segments),
        "bytes": meter.checked,
        "damaged": [asdict(damage) for damage in found],
        "set_aside": bad if repair else [],
        "seconds": time.perf_counter() - began,
    }


def check_segment(segment: Segment, meter: "_Meter | None" = None) -> list[Damage]:
    """Find all damage of a segment: in metadata, checksums, offsets and numbers; missing, foreign and resized files."""
    damages = _problems(segment, meter or _Meter(None, 0))
    # A segment that gc removed meanwhile is not damaged: gc sealed its replacement first.
    return damages if damages and segment.id in segment.place.segment_names() else []


def _problems(segment: Segment, meter: "_Meter") -> list[Damage]:
    try:
        document, specs = segment.document, segment.specs
        files = segment.record["files"]
        if dumps(document) != segment.place.document(segment.name(DOCUMENT)):
            return [_damage(segment, DOCUMENT, "not the canonical JSON that was sealed")]
        there = segment.place.listing(segment.id)
        damages = [*_listing(segment, files, there), *_blocks(segment, files, there, meter)]
        if not damages:
            damages = _metadata(segment)
        if not damages and specs:
            _ = segment.keys, segment.digests, segment.offsets
            damages = list(_numbers(segment, meter)) if segment.place.is_local else []
    except RecycleError as error:
        return [_damage(segment, DOCUMENT, str(error))]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return [_damage(segment, DOCUMENT, f"metadata is not of this format ({type(error).__name__}: {error})")]
    return damages


def _to_read(place: Place, files: Mapping[str, int]) -> int:
    """Bytes that checking a segment reads: files of rows count twice if `_numbers` reads them too."""
    sizes = {name: size for name, size in files.items() if size != LINK}
    again = [size for name, size in sizes.items() if name.startswith("cuts/") and not name.endswith(DOCUMENT)]
    return sum(sizes.values()) + (sum(again) if place.is_local else 0)


class _Meter:
    """Bytes read by all threads; `checked` counts each file once.

    If two threads add at the same instant, the progress may lag by one step for a moment.
    """

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total = progress, total
        self.read = self.checked = 0

    def add(self, count: int, *, again: bool = False) -> None:
        self.read += count
        self.checked += 0 if again else count
        if self._progress is not None:
            self._progress(self.read, self._total)


def _damage(segment: Segment, file: str, problem: str, start: int | None = None, stop: int | None = None) -> Damage:
    return Damage(segment.id, file, problem, start, stop)


def _listing(segment: Segment, files: dict[str, dict[str, Any]], there: Mapping[str, int]) -> Iterator[Damage]:
    """Report files that are missing, do not belong to the segment, or have another size."""
    for name in sorted(there.keys() - files.keys() - {DOCUMENT}):
        yield _damage(segment, name, "not a file of this segment")
    for name, record in files.items():
        size, sealed = there.get(name), record["bytes"]
        if size == LINK:
            yield _damage(segment, name, "a link, where a file was sealed")
        elif size is None:
            yield _damage(segment, name, "missing", 0, sealed)
        elif size != sealed:
            yield _damage(segment, name, f"{size} bytes, {sealed} were sealed", *sorted((size, sealed)))


def _blocks(
    segment: Segment, files: dict[str, dict[str, Any]], there: Mapping[str, int], meter: _Meter
) -> Iterator[Damage]:
    """Report runs of blocks whose checksum differs, and files whose checksum differs though all their blocks fit."""
    for name, record in files.items():
        size = record["bytes"]
        if there.get(name) != size:
            continue
        data = segment.place.ranged(segment.name(name), size)
        bad: list[int] = []
        whole = xxhash.xxh3_128()
        for number in range(-(-size // BLOCK_BYTES)):
            block = data[number * BLOCK_BYTES : min((number + 1) * BLOCK_BYTES, size)]
            whole.update(block)
            if xxhash.xxh3_64_hexdigest(block) != record["blocks"][number * _DIGITS : (number + 1) * _DIGITS]:
                bad.append(number)
            meter.add(len(block))
        for first, last in _runs(bad):
            yield _damage(
                segment, name, "the checksum differs", first * BLOCK_BYTES, min((last + 1) * BLOCK_BYTES, size)
            )
        if not bad and whole.hexdigest() != record["xxh3_128"]:
            yield _damage(segment, name, "the checksum differs", 0, size)


def _metadata(segment: Segment) -> list[Damage]:
    """Report metadata files that differ from their copy in the group document."""
    metadata = segment.document["consolidated_metadata"]["metadata"]
    return [
        _damage(segment, f"{name}/{DOCUMENT}", "differs from the consolidated metadata")
        for name, document in metadata.items()
        if segment.place.document(segment.name(f"{name}/{DOCUMENT}")) != dumps(document)
    ]


def _numbers(segment: Segment, meter: _Meter) -> Iterator[Damage]:
    """Report content that our writer never stores, even if its checksums fit: NaN, infinity, chunks that do not decode,
    and chunks that do not lie where other readers look for them.

    Only for local stores: in a bucket this would fetch everything a second time.
    """
    for cut in segment.cuts:
        yield from _rows(segment, values_name(cut), segment.dtype, partial(segment.values, cut), meter)
        if segment.dtype == "int8":
            yield from _rows(segment, scales_name(cut), "float32", partial(segment.scales, cut), meter)


def _rows(segment: Segment, name: str, dtype: str, rows_of: Callable[[], Rows], meter: _Meter) -> Iterator[Damage]:
    """Report what is wrong with the numbers of one array, up to the first chunk that does not decode."""
    spec = segment.specs[name]
    file, rows = f"{name}/{spec.chunk_key}", spec.shape[0]
    size = segment.record["files"][file]["bytes"] if rows else 0
    chunk_rows = spec.chunk_rows or 1
    step = max(1, BLOCK_BYTES // (chunk_rows * spec.row_bytes)) * chunk_rows
    try:
        if rows and spec.compressor is None and not _in_order(segment, file, spec):
            yield _damage(segment, file, "the shard's index does not say that its chunks lie in order")
        for start in range(0, rows, step):
            stop = min(start + step, rows)
            if not is_finite(rows_of()[start:stop], dtype):
                yield _damage(segment, file, f"NaN or infinity in rows {start} to {stop}")
            meter.add(size * stop // rows - size * start // rows, again=True)
    except StoreError as error:
        yield _damage(segment, file, str(error))


def _in_order(segment: Segment, file: str, spec: ArraySpec) -> bool:
    """Whether an uncompressed shard has the index that our writer gives it, which mapped reads would not notice."""
    assert spec.file_bytes is not None, "the size of an uncompressed shard follows from its shape"
    assert spec.chunk_rows is not None, "row arrays are shards"
    end = spec.file_bytes
    found = segment.place.ranged(segment.name(file), end)[end - spec.index_bytes : end]
    return bytes(found) == shard_index([spec.chunk_rows * spec.row_bytes] * spec.chunks)


def _runs(numbers: list[int]) -> Iterator[tuple[int, int]]:
    """Yield (first, last) of each run of consecutive numbers."""
    there = set(numbers)
    for start in (number for number in numbers if number - 1 not in there):
        stop = start
        while stop + 1 in there:
            stop += 1
        yield start, stop


def _parts(damages: list[Damage]) -> set[str]:
    """Names of damaged parts that are not segments: the root's documents and indexes."""
    return {damage.segment for damage in damages if damage.segment == DOCUMENT or "/" in damage.segment}


def _root_damage(place: Place) -> list[Damage]:
    """Find damage of the root. Raises StoreError if another program or a newer version of the format made it."""
    damages = []
    try:
        if place.is_store():
            check_version(loads(place.document(DOCUMENT), place.where(DOCUMENT)), place.where(""))
        elif not place.has_begun():
            read_root(place)
    except DamageError as error:
        return [Damage(DOCUMENT, DOCUMENT, str(error))]
    try:
        read_root(place)
        data = place.document(DOCUMENT)
        if dumps(loads(data, place.where(DOCUMENT))) != data:
            damages.append(Damage(DOCUMENT, DOCUMENT, "not the canonical JSON that was sealed", 0, len(data)))
    except StoreError as error:
        damages.append(Damage(DOCUMENT, DOCUMENT, str(error)))
    for name in (f"{group}/{DOCUMENT}" for group in GROUPS):
        try:
            sound = place.document(name) == dumps(group_document())
        except DamageError:
            sound = False
        if not sound:
            damages.append(Damage(name, name, "not the metadata of a group"))
    return damages


def _segments(place: Place) -> list[Segment]:
    """All segments, with the root's recipe; none if the root is damaged."""
    try:
        recipe, _ = read_root(place)
    except StoreError:
        return []
    return [Segment(place, name, recipe.fingerprint, recipe.dtype) for name in place.segment_names()]


def _index_damage(root: Path, segments: list[Segment]) -> Iterator[Damage]:
    """Report indexes that do not fit the segments."""
    known = {segment.id: segment for segment in segments}
    for folder in sorted(path for path in (root / INDEX).iterdir() if path.is_dir() and is_name(path.name)):
        problem = _index_problem(folder, known)
        if problem is not None and folder.exists():  # a newer index may have replaced it meanwhile
            yield Damage(f"{INDEX}/{folder.name}", f"{INDEX}/{folder.name}", problem)


def _index_problem(folder: Path, known: Mapping[str, Segment]) -> str | None:
    """The problem of an index, or None. One that names a removed segment is no problem: every reader ignores it."""
    if folder.is_symlink():
        return "a link, where the store has a folder"
    try:
        summaries, level = load_one(folder)
        if any(summary.id not in known for summary in summaries):
            return None
        covered = Segments([known[summary.id] for summary in summaries], [summary.samples for summary in summaries])
        fits = all(known[summary.id].summary == summary for summary in summaries) and _agrees(level, covered)
    except GoneError:
        return None
    except (StoreError, ValueError, OSError) as error:
        return str(error)
    return None if fits else "does not fit the segments"


def _agrees(level: Level, segments: Segments) -> bool:
    """Whether the entries are sorted, unique, within the segments, and fit the keys there."""
    if not len(level):
        return not len(segments)
    if level.positions.min() < 0 or level.positions.max() >= len(segments):
        return False
    rising = bool((level.high[1:] >= level.high[:-1]).all())
    unique = len(np.unique(level.positions)) == len(level)
    return rising and unique and bool((high_half(segments.take("keys", level.positions)) == level.high).all())
