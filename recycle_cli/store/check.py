"""Verify a store: read every byte of it, name what is damaged down to the byte range, set it aside on request."""

import os
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
"""Called with bytes read so far and bytes in all."""

_DIGITS = 16


@dataclass(frozen=True, slots=True)
class Damage:
    """One thing that is not as it was sealed: bytes start to stop of `file`, both None where it is not a range."""

    segment: str
    file: str
    problem: str
    start: int | None = None
    stop: int | None = None


def verify(
    path: str, *, repair: bool = False, workers: int | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Check every file of the sealed segments against what was recorded at sealing.

    Gives {store, segments, bytes, damaged: [{segment, file, problem, start, stop}], set_aside: [...], seconds}.
    With `repair`, damaged segments move to `damaged/`: the next precompute fills in just what they held. A damaged
    root moves there too, and comes back from the recipe of the next precompute.
    Raises StoreError where `path` is no store, StorageError where another maintenance is at work.
    """
    began = time.perf_counter()
    place = open_place(path)
    had_root = place.is_store()
    found = _root_damage(place)
    segments = _segments(place)
    total = sum(_to_read(place, place.listing(segment.id)) for segment in segments)
    meter = _Meter(progress, total)
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        for damages in pool.map(lambda segment: check_segment(segment, meter), segments):
            found += damages
    damaged = {damage.segment for damage in found}
    if place.is_local:
        found += _index_damage(Path(place.where("")), [segment for segment in segments if segment.id not in damaged])
    bad = sorted({damage.segment for damage in found})
    if repair and bad:
        # A root that was missing may be there by now, made by a precompute: leave that.
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
    """All that is wrong with one segment: metadata, missing, foreign and resized files, blocks, offsets."""
    damages = _problems(segment, meter or _Meter(None, 0))
    # What gc removed while we looked is no damage: it sealed the replacement first.
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
    """Bytes of a segment's files, those of rows twice where `_numbers` reads them as well."""
    sizes = {name: size for name, size in files.items() if size != LINK}
    again = [size for name, size in sizes.items() if name.startswith("cuts/") and not name.endswith(DOCUMENT)]
    return sum(sizes.values()) + (sum(again) if place.is_local else 0)


class _Meter:
    """Bytes read by all threads, and in `checked` those of the files, each once. Two threads that add at once may show
    one step less for a moment."""

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
    """Files that are missing, are not of the segment, or have another size."""
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
    """Ranges of neighbouring blocks whose checksum is another, and a whole whose checksum is another."""
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
    """Metadata files that say something else than the group document does."""
    metadata = segment.document["consolidated_metadata"]["metadata"]
    return [
        _damage(segment, f"{name}/{DOCUMENT}", "differs from the consolidated metadata")
        for name, document in metadata.items()
        if segment.place.document(segment.name(f"{name}/{DOCUMENT}")) != dumps(document)
    ]


def _numbers(segment: Segment, meter: _Meter) -> Iterator[Damage]:
    """What no writer of ours stores, whatever its checksums say: NaN, infinity, chunks that do not decode or that do
    not lie where other readers look for them.

    Not in a bucket, where it would fetch everything a second time.
    """
    for cut in segment.cuts:
        yield from _rows(segment, values_name(cut), segment.dtype, partial(segment.values, cut), meter)
        if segment.dtype == "int8":
            yield from _rows(segment, scales_name(cut), "float32", partial(segment.scales, cut), meter)


def _rows(segment: Segment, name: str, dtype: str, rows_of: Callable[[], Rows], meter: _Meter) -> Iterator[Damage]:
    """What is wrong with the numbers of one array, as far as it can be decoded."""
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
    """Whether the index of an uncompressed shard, which a map does without, is the one that our writer gives it."""
    assert spec.file_bytes is not None, "an uncompressed shard has its size from its shape"
    assert spec.chunk_rows is not None, "row arrays are shards"
    end = spec.file_bytes
    found = segment.place.ranged(segment.name(file), end)[end - spec.index_bytes : end]
    return bytes(found) == shard_index([spec.chunk_rows * spec.row_bytes] * spec.chunks)


def _runs(numbers: list[int]) -> Iterator[tuple[int, int]]:
    """(first, last) of each run of consecutive numbers."""
    there = set(numbers)
    for start in (number for number in numbers if number - 1 not in there):
        stop = start
        while stop + 1 in there:
            stop += 1
        yield start, stop


def _parts(damages: list[Damage]) -> set[str]:
    """Names that are not of segments, but of the root or of an index."""
    return {damage.segment for damage in damages if damage.segment == DOCUMENT or "/" in damage.segment}


def _root_damage(place: Place) -> list[Damage]:
    """What is wrong with the root. Raises StoreError where it is another program's, or of a newer format."""
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
    """Every segment, by the root's recipe; none where the root is damaged."""
    try:
        recipe, _ = read_root(place)
    except StoreError:
        return []
    return [Segment(place, name, recipe.fingerprint, recipe.dtype) for name in place.segment_names()]


def _index_damage(root: Path, segments: list[Segment]) -> Iterator[Damage]:
    """Indexes that are not what building them again would give."""
    known = {segment.id: segment for segment in segments}
    for folder in sorted(path for path in (root / INDEX).iterdir() if path.is_dir() and is_name(path.name)):
        problem = _index_problem(folder, known)
        if problem is not None and folder.exists():  # a newer one may have taken its place meanwhile
            yield Damage(f"{INDEX}/{folder.name}", f"{INDEX}/{folder.name}", problem)


def _index_problem(folder: Path, known: Mapping[str, Segment]) -> str | None:
    """What is wrong with an index; nothing where a segment of it is gone, which any reader sees too."""
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
    if not len(level):
        return not len(segments)
    if level.positions.min() < 0 or level.positions.max() >= len(segments):
        return False
    rising = bool((level.high[1:] >= level.high[:-1]).all())
    unique = len(np.unique(level.positions)) == len(level)
    return rising and unique and bool((high_half(segments.take("keys", level.positions)) == level.high).all())
