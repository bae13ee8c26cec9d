"""Check a segment against what was sealed: every byte, its metadata, offsets and numbers.

What could not be read is kept apart from what is damaged, and files that do not belong to the segment from both.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import xxhash

from recycle_cli.errors import DamageError, RecycleError, StorageError, StoreError
from recycle_cli.recipe import has_scales
from recycle_cli.store.chunked import ChunkedRows
from recycle_cli.store.dtypes import Array, are_scales, is_finite
from recycle_cli.store.files import BLOCK_BYTES
from recycle_cli.store.layout import DOCUMENT, ArraySpec, dumps
from recycle_cli.store.patient import PatientPlace, ReadError
from recycle_cli.store.place import LINK, ReadablePlace
from recycle_cli.store.rowarray import shard_index
from recycle_cli.store.segment import KEYS, OFFSETS, Segment, scales_name, values_name

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


@dataclass(frozen=True, slots=True)
class Unread:
    """A file that could not be read, so that nobody knows whether it is damaged."""

    segment: str
    file: str
    problem: str


@dataclass
class Findings:
    """The outcome of a check: damage, files that could not be read, and names of files that are not the store's."""

    damaged: list[Damage] = field(default_factory=list)
    unread: list[Unread] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def add(self, other: "Findings") -> None:
        """Add the findings of another check."""
        self.damaged += other.damaged
        self.unread += other.unread
        self.foreign += other.foreign

    def failed(self, segment: str, error: ReadError) -> None:
        """File what could not be read: as damage if the file itself is at fault."""
        file = error.file.removeprefix(f"segments/{segment}/")
        if error.is_damage:
            self.damaged.append(Damage(segment, file, str(error.cause)))
        else:
            self.unread.append(Unread(segment, file, str(error.cause)))


class Meter:
    """Bytes read by all threads; `checked` counts each file once.

    If two threads add at the same instant, the progress may lag by one step for a moment.
    """

    def __init__(self, progress: Progress | None = None, total: int = 0) -> None:
        self._progress, self._total = progress, total
        self.read = self.checked = 0

    def add(self, count: int, *, again: bool = False) -> None:
        """Count bytes that were read; `again`: of a file that is counted already."""
        self.read += count
        self.checked += 0 if again else count
        if self._progress is not None:
            self._progress(self.read, self._total)


def check_segment(segment: Segment, meter: Meter | None = None) -> Findings:
    """Find all damage of a segment, its files that cannot be read, and the files in it that are not its own."""
    segment = _patient(segment)
    found = _problems(segment, meter or Meter())
    return Findings() if found.damaged and _is_gone(segment) else found


def _is_gone(segment: Segment) -> bool:
    """Whether gc removed it meanwhile. It is not damaged then: gc sealed its replacement first."""
    return segment.id not in segment.place.segment_names()


def require_sound(segments: Iterable[Segment], purpose: str) -> None:
    """Raise DamageError if a segment is damaged and StorageError if it cannot be read. `purpose`: the command that
    needs it whole, for the message."""
    for segment in segments:
        _refuse(segment, check_segment(segment), purpose)


def require_keys(segments: Iterable[Segment], purpose: str) -> None:
    """Raise as `require_sound`, for the keys alone: they say which samples a segment holds."""
    for segment in map(_patient, segments):
        found = Findings()
        with _filing(found, segment):
            name = f"{KEYS}/{segment.specs[KEYS].chunk_key}"
            found.damaged += _blocks(segment, name, segment.record["files"][name], Meter())
        if found.unread or (found.damaged and not _is_gone(segment)):
            _refuse(segment, found, purpose)


def _refuse(segment: Segment, found: Findings, purpose: str) -> None:
    for unread in found.unread:
        raise StorageError(f"{unread.problem}; {purpose} needs it and stopped, nothing was removed")
    for damage in found.damaged:
        raise DamageError(
            f"{segment.where(damage.file)}: {damage.problem}; "
            f"run `recycle store verify --repair` before {purpose}, nothing was removed"
        )


def _patient(segment: Segment) -> Segment:
    """The segment, read with patience."""
    if isinstance(segment.place, PatientPlace):
        return segment
    return Segment(PatientPlace(segment.place), segment.id, segment.fingerprint, segment.dtype)


def _problems(segment: Segment, meter: Meter) -> Findings:
    found = Findings()
    with _filing(found, segment):
        document, specs = segment.document, segment.specs
        files = segment.record["files"]
        if dumps(document) != segment.place.document(segment.name(DOCUMENT)):
            found.damaged.append(_damage(segment, DOCUMENT, "not the canonical JSON that was sealed"))
            return found
        there = segment.place.listing(segment.id)
        found.foreign += [segment.name(name) for name in sorted(there.keys() - files.keys() - {DOCUMENT})]
        found.damaged += _listing(segment, files, there)
        for name, record in files.items():
            if there.get(name) == record["bytes"]:
                _guarded(found, segment, partial(_blocks, segment, name, record, meter))
        if not found.damaged and not found.unread:
            _guarded(found, segment, partial(_metadata, segment))
        if not found.damaged and not found.unread and specs:
            _guarded(found, segment, partial(_contents, segment, meter))
    return found


@contextmanager
def _filing(found: Findings, segment: Segment) -> Iterator[None]:
    """File what cannot be read of a segment, or is damaged, with the findings."""
    try:
        yield
    except ReadError as error:
        found.failed(segment.id, error)
    except StorageError:
        raise
    except RecycleError as error:
        found.damaged.append(_damage(segment, DOCUMENT, str(error)))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        problem = f"metadata is not of this format ({type(error).__name__}: {error})"
        found.damaged.append(_damage(segment, DOCUMENT, problem))


def _guarded(found: Findings, segment: Segment, check: Callable[[], Iterable[Damage]]) -> None:
    """Add what a check finds. If it cannot read a file, the other checks still run."""
    try:
        found.damaged += check()
    except ReadError as error:
        found.failed(segment.id, error)


def bytes_to_read(place: ReadablePlace, files: Mapping[str, int]) -> int:
    """Bytes that checking a segment reads: files of rows count twice if `_numbers` reads them too, and its document,
    which has no checksum beside it, not at all."""
    sizes = {name: size for name, size in files.items() if size != LINK and name != DOCUMENT}
    again = [size for name, size in sizes.items() if name.startswith("cuts/") and not name.endswith(DOCUMENT)]
    return sum(sizes.values()) + (sum(again) if place.is_local else 0)


def _damage(segment: Segment, file: str, problem: str, start: int | None = None, stop: int | None = None) -> Damage:
    return Damage(segment.id, file, problem, start, stop)


def _listing(segment: Segment, files: dict[str, dict[str, Any]], there: Mapping[str, int]) -> Iterator[Damage]:
    """Report files that are missing or have another size."""
    for name, record in files.items():
        size, sealed = there.get(name), record["bytes"]
        if size == LINK:
            yield _damage(segment, name, "a link, where a file was sealed")
        elif size is None:
            yield _damage(segment, name, "missing", 0, sealed)
        elif size != sealed:
            yield _damage(segment, name, f"{size} bytes, {sealed} were sealed", *sorted((size, sealed)))


def _blocks(segment: Segment, name: str, record: Mapping[str, Any], meter: Meter) -> list[Damage]:
    """Report runs of blocks of a file whose checksum differs, or the file if all of its blocks fit but it does not."""
    size = record["bytes"]
    data = segment.place.ranged(segment.name(name), size)
    bad: list[int] = []
    whole = xxhash.xxh3_128()
    for number in range(-(-size // BLOCK_BYTES)):
        block = data[number * BLOCK_BYTES : min((number + 1) * BLOCK_BYTES, size)]
        whole.update(block)
        if xxhash.xxh3_64_hexdigest(block) != record["blocks"][number * _DIGITS : (number + 1) * _DIGITS]:
            bad.append(number)
        meter.add(len(block))
    if not bad and whole.hexdigest() != record["xxh3_128"]:
        return [_damage(segment, name, "the checksum differs", 0, size)]
    return [
        _damage(segment, name, "the checksum differs", first * BLOCK_BYTES, min((last + 1) * BLOCK_BYTES, size))
        for first, last in _runs(bad)
    ]


def _metadata(segment: Segment) -> list[Damage]:
    """Report metadata files that differ from their copy in the group document."""
    metadata = segment.document["consolidated_metadata"]["metadata"]
    return [
        _damage(segment, f"{name}/{DOCUMENT}", "differs from the consolidated metadata")
        for name, document in metadata.items()
        if segment.place.document(segment.name(f"{name}/{DOCUMENT}")) != dumps(document)
    ]


def _contents(segment: Segment, meter: Meter) -> Iterator[Damage]:
    """Report content that our writer never stores, even if its checksums fit: offsets that decrease, NaN, infinity,
    chunks that do not decode, and chunks that do not lie where other readers look for them.

    The rows only of local stores: in a bucket this would fetch everything a second time.
    """
    _ = segment.keys, segment.digests
    try:
        _ = segment.offsets
    except StorageError:
        raise
    except StoreError as error:
        yield _damage(segment, f"{OFFSETS}/{segment.specs[OFFSETS].chunk_key}", str(error))
        return
    for cut in segment.cuts if segment.place.is_local else []:
        yield from _rows(segment, values_name(cut), is_finite, meter)
        if has_scales(segment.dtype):
            yield from _rows(segment, scales_name(cut), are_scales, meter)


def _rows(segment: Segment, name: str, sound: Callable[[Array, str], bool], meter: Meter) -> Iterator[Damage]:
    """Report what is wrong with the numbers of one array, up to the first chunk that does not decode.

    sound  tells from some of its rows and the store's dtype whether they are numbers

    The rows are read, not mapped: a disk that fails under a map ends the process.
    """
    spec = segment.specs[name]
    file, rows = f"{name}/{spec.chunk_key}", spec.shape[0]
    if not rows:
        return
    size = segment.record["files"][file]["bytes"]
    chunk_rows = spec.chunk_rows or 1
    step = max(1, BLOCK_BYTES // (chunk_rows * spec.row_bytes))
    try:
        if spec.compressor is None and not _in_order(segment, file, spec):
            yield _damage(segment, file, "the shard's index does not say that its chunks lie in order")
            return
        array = segment.chunked(name)
        for first in range(0, spec.chunks, step):
            last = min(first + step, spec.chunks)
            start, stop = first * chunk_rows, min(last * chunk_rows, rows)
            if not sound(_decoded(array, first, last)[: stop - start], segment.dtype):
                yield _damage(segment, file, f"NaN or infinity in rows {start} to {stop}")
            meter.add(size * stop // rows - size * start // rows, again=True)
    except StorageError:
        raise
    except StoreError as error:
        yield _damage(segment, file, str(error))


def _decoded(array: ChunkedRows, first: int, last: int) -> np.ndarray[Any, Any]:
    out = np.empty(((last - first) * array.chunk_rows, *array.shape[1:]), array.dtype)
    array.read_into(first, last, out)
    return out


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
