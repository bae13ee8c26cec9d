"""Verify a store: read every byte of it, name what is damaged down to the byte range, set it aside on request."""

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from recycle_cli.errors import RecycleError, StoreError
from recycle_cli.store.budget import bytes_below
from recycle_cli.store.files import BLOCK_BYTES, read_document, storage_errors, sync_folder
from recycle_cli.store.index import Level, Segments, high_half
from recycle_cli.store.indexfile import load_one
from recycle_cli.store.layout import (
    DAMAGED,
    DOCUMENT,
    INDEX,
    SCRATCH,
    SEGMENTS,
    dumps,
    group_document,
    is_name,
    loads,
)
from recycle_cli.store.liveness import maintenance
from recycle_cli.store.root import create_file, read_root, segment_names
from recycle_cli.store.segment import Segment

Progress = Callable[[int, int], None]
"""Called with bytes read so far and bytes in all."""

_BLOCK_DIGITS = 16


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
    root = Path(path).resolve()
    with storage_errors(path):
        found = _root_damage(root)
        segments = _segments(root)
        total = sum(bytes_below(segment.folder) for segment in segments)
        meter = _Meter(progress, total)
        with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
            for damages in pool.map(lambda segment: check_segment(segment, meter), segments):
                found += damages
        damaged = {damage.segment for damage in found}
        sound = [segment for segment in segments if segment.folder.name not in damaged]
        found += _index_damage(root, sound)
        moved = _set_aside(root, sorted({damage.segment for damage in found})) if repair and found else []
    return {
        "store": path,
        "segments": len(segments),
        "bytes": meter.read,
        "damaged": [asdict(damage) for damage in found],
        "set_aside": moved,
        "seconds": time.perf_counter() - began,
    }


def check_segment(segment: Segment, meter: "_Meter | None" = None) -> list[Damage]:
    """All that is wrong with one segment: metadata, missing, foreign and resized files, blocks, offsets."""
    try:
        document, specs = segment.document, segment.specs
        files = segment.record["files"]
        if dumps(document) != read_document(segment.folder / DOCUMENT):
            return [_damage(segment, DOCUMENT, "not the canonical JSON that was sealed")]
        damages = [*_listing(segment, files), *_blocks(segment, files, meter or _Meter(None, 0))]
        if not damages:
            damages = _metadata(segment)
        if not damages and specs:
            _ = segment.offsets
    except RecycleError as error:
        return [_damage(segment, DOCUMENT, str(error))]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return [_damage(segment, DOCUMENT, f"metadata is not of this format ({type(error).__name__}: {error})")]
    return damages


class _Meter:
    """Bytes read by all threads. Two threads that add at once may show one step less for a moment."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total = progress, total
        self.read = 0

    def add(self, count: int) -> None:
        self.read += count
        if self._progress is not None:
            self._progress(self.read, self._total)


def _damage(segment: Segment, file: str, problem: str, start: int | None = None, stop: int | None = None) -> Damage:
    return Damage(segment.folder.name, file, problem, start, stop)


def _listing(segment: Segment, files: dict[str, dict[str, Any]]) -> Iterator[Damage]:
    """Files that are missing, are not of the segment, or have another size."""
    for name in sorted(found_files(segment.folder) - files.keys() - {DOCUMENT}):
        yield _damage(segment, name, "not a file of this segment")
    for name, record in files.items():
        path = segment.folder / name
        if os.path.realpath(path) != str(path):
            yield _damage(segment, name, "leads out of the segment")
        elif not path.is_file():
            yield _damage(segment, name, "missing", 0, record["bytes"])
        elif (size := path.stat().st_size) != record["bytes"]:
            start, stop = sorted((size, record["bytes"]))
            yield _damage(segment, name, f"{size} bytes, {record['bytes']} were sealed", start, stop)


def _blocks(segment: Segment, files: dict[str, dict[str, Any]], meter: _Meter) -> Iterator[Damage]:
    """Ranges of neighbouring blocks whose checksum is another, and a whole whose checksum is another."""
    buffer = bytearray(BLOCK_BYTES)
    for name, record in files.items():
        path = segment.folder / name
        if os.path.realpath(path) != str(path) or not path.is_file() or path.stat().st_size != record["bytes"]:
            continue
        bad: list[int] = []
        whole = xxhash.xxh3_128()
        with path.open("rb", buffering=0) as file:
            for number in range(-(-record["bytes"] // BLOCK_BYTES)):
                block = memoryview(buffer)[: file.readinto(buffer) or 0]
                whole.update(block)
                sealed = record["blocks"][number * _BLOCK_DIGITS : (number + 1) * _BLOCK_DIGITS]
                if xxhash.xxh3_64_hexdigest(block) != sealed:
                    bad.append(number)
                meter.add(len(block))
        for first, last in _runs(bad):
            stop = min((last + 1) * BLOCK_BYTES, record["bytes"])
            yield _damage(segment, name, "the checksum differs", first * BLOCK_BYTES, stop)
        if not bad and whole.hexdigest() != record["xxh3_128"]:
            yield _damage(segment, name, "the checksum differs", 0, record["bytes"])


def _metadata(segment: Segment) -> list[Damage]:
    """Metadata files that say something else than the group document does."""
    metadata = segment.document["consolidated_metadata"]["metadata"]
    return [
        _damage(segment, f"{name}/{DOCUMENT}", "differs from the consolidated metadata")
        for name, document in metadata.items()
        if read_document(segment.folder / name / DOCUMENT) != dumps(document)
    ]


def found_files(folder: Path) -> set[str]:
    """Everything below a folder that is no folder, by its path from there; links are not followed."""
    found: set[str] = set()
    for parent, folders, files in os.walk(folder):
        links = [name for name in folders if (Path(parent) / name).is_symlink()]
        found |= {(Path(parent) / name).relative_to(folder).as_posix() for name in (*files, *links)}
    return found


def _runs(numbers: list[int]) -> Iterator[tuple[int, int]]:
    """(first, last) of each run of consecutive numbers."""
    there = set(numbers)
    for start in (number for number in numbers if number - 1 not in there):
        stop = start
        while stop + 1 in there:
            stop += 1
        yield start, stop


def _root_damage(root: Path) -> list[Damage]:
    damages = []
    try:
        read_root(root)
        data = read_document(root / DOCUMENT)
        if dumps(loads(data, str(root))) != data:
            damages.append(Damage(DOCUMENT, DOCUMENT, "not the canonical JSON that was sealed", 0, len(data)))
    except StoreError as error:
        if not (root / SEGMENTS).is_dir():
            raise
        damages.append(Damage(DOCUMENT, DOCUMENT, str(error)))
    for group in (SEGMENTS, SCRATCH, INDEX):
        file = root / group / DOCUMENT
        if not file.is_file() or read_document(file) != dumps(group_document()):
            damages.append(Damage(f"{group}/{DOCUMENT}", f"{group}/{DOCUMENT}", "not the metadata of a group"))
    return damages


def _segments(root: Path) -> list[Segment]:
    """Every segment, by the root's recipe, or where the root is damaged by what each says of itself."""
    try:
        recipe, _ = read_root(root)
    except StoreError:
        return []
    return [Segment(root / SEGMENTS / name, recipe.fingerprint, recipe.dtype) for name in segment_names(root)]


def _index_damage(root: Path, segments: list[Segment]) -> list[Damage]:
    """Indexes that are not what building them again would give."""
    known = {segment.folder.name: segment for segment in segments}
    damages = []
    for folder in sorted(path for path in (root / INDEX).iterdir() if path.is_dir() and is_name(path.name)):
        try:
            summaries, level = load_one(folder)
        except (StoreError, ValueError) as error:
            damages.append(Damage(f"{INDEX}/{folder.name}", f"{INDEX}/{folder.name}", str(error)))
            continue
        if any(summary.id not in known for summary in summaries):
            continue  # outdated, and known to be
        covered = Segments([known[summary.id] for summary in summaries], [summary.samples for summary in summaries])
        if any(known[summary.id].summary != summary for summary in summaries) or not _agrees(level, covered):
            damages.append(Damage(f"{INDEX}/{folder.name}", f"{INDEX}/{folder.name}", "does not fit the segments"))
    return damages


def _agrees(level: Level, segments: Segments) -> bool:
    if not len(level):
        return not len(segments)
    if level.positions.min() < 0 or level.positions.max() >= len(segments):
        return False
    rising = bool((level.high[1:] >= level.high[:-1]).all())
    unique = len(np.unique(level.positions)) == len(level)
    return rising and unique and bool((high_half(segments.take("keys", level.positions)) == level.high).all())


def _set_aside(root: Path, names: list[str]) -> list[str]:
    """Move damaged parts out of sight, one atomic step each."""
    aside = root / DAMAGED
    with maintenance(root / SCRATCH):
        aside.mkdir(exist_ok=True)
        create_file(aside / DOCUMENT, dumps(group_document()))
        for name in names:
            source = root / name if "/" in name or name == DOCUMENT else root / SEGMENTS / name
            target = aside / f"{name.replace('/', '-')}-{time.time_ns()}"
            if source.exists() or source.is_symlink():
                source.rename(target)
                sync_folder(source.parent)
            if name.endswith(DOCUMENT) and name != DOCUMENT:
                create_file(source, dumps(group_document()))
        sync_folder(aside)
    return names
