"""Verify a store: read every byte, report damage down to the byte range, and set damaged parts aside on request."""

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from recycle_cli.errors import GoneError, StorageError, StoreError, UnreadError
from recycle_cli.keys import KEY_BYTES
from recycle_cli.recipe import Recipe
from recycle_cli.runtime.threads import usable_cores
from recycle_cli.store.check import Damage, Findings, Meter, Progress, Unread, bytes_to_read, check_segment
from recycle_cli.store.files import storage_errors
from recycle_cli.store.index import Level, Segments, high_half
from recycle_cli.store.indexfile import is_index, load_one
from recycle_cli.store.layout import DOCUMENT, INDEX, SEGMENTS, dumps, group_document
from recycle_cli.store.patient import PatientPlace, ReadError
from recycle_cli.store.place import Place, ReadablePlace
from recycle_cli.store.places import open_place
from recycle_cli.store.root import GROUPS, mended_root, read_root, root_problem
from recycle_cli.store.segment import KEYS, Segment


def verify(
    path: str, *, repair: bool = False, workers: int | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Check every file of the sealed segments against its recorded size and checksums, as it is on the disk or in the
    bucket, whatever a cache holds.

    Returns {store, segments, bytes, damaged: [{segment, file, problem, start, stop}], unread: [{segment, file,
    problem}], foreign: [...], set_aside: [...], set_aside_samples, mended, seconds}. `unread` could not be read for
    reasons that say nothing about the files, after several attempts; `foreign` are files that are not the store's.
    With `repair`, damaged segments move to `damaged/`, and the next precompute fills in only what they held; what is
    unread or foreign stays where it is. A damaged root is made anew if its recipe is the one that the segments were
    sealed with (`mended`); else it moves there too, and the next precompute makes it anew.
    Raises StoreError if `path` is no store, UnreadError if its root or its folders cannot be read, StorageError if
    another maintenance is running.
    """
    began = time.perf_counter()
    place = open_place(path).uncached()
    patient = PatientPlace(place)
    try:
        had_root = patient.is_store()
        found, recipe, mended = _root(patient)
        segments = [] if recipe is None else _segments(patient, recipe)
        found.foreign += [] if recipe is None else patient.foreign()
        total = sum(bytes_to_read(place, _listed(patient, segment)) for segment in segments)
    except ReadError as error:
        raise _lost(error) from error
    meter = Meter(progress, total)
    sound = _check_segments(segments, found, meter, workers)
    if place.is_local and recipe is not None:
        found.add(_indexes(Path(place.where("")), sound))
    aside, lost = _repair(place, found, segments, mended, had_root=had_root) if repair else ([], 0)
    return {
        "store": path,
        "segments": len(segments),
        "bytes": meter.checked,
        "damaged": [asdict(damage) for damage in found.damaged],
        "unread": [asdict(unread) for unread in found.unread],
        "foreign": sorted(found.foreign),
        "set_aside": aside,
        "set_aside_samples": lost,
        "mended": [DOCUMENT] if repair and mended is not None else [],
        "seconds": time.perf_counter() - began,
    }


def _check_segments(segments: list[Segment], found: Findings, meter: Meter, workers: int | None) -> list[Segment]:
    """Check segments, several at a time, and add what is wrong to `found`. Returns the sound ones."""
    with ThreadPoolExecutor(workers or usable_cores()) as pool:
        for one in pool.map(lambda segment: check_segment(segment, meter), segments):
            found.add(one)
    known = {damage.segment for damage in found.damaged} | {unread.segment for unread in found.unread}
    return [segment for segment in segments if segment.id not in known]


def _lost(error: ReadError) -> StoreError:
    """The error to raise if a part cannot be read without which nothing can be verified."""
    return error.cause if error.is_damage else UnreadError(str(error.cause))


def _segments(place: PatientPlace, recipe: Recipe) -> list[Segment]:
    names = [name for name in place.segment_names() if place.is_segment(name)]
    return [Segment(place, name, recipe.fingerprint, recipe.dtype) for name in names]


def _listed(place: ReadablePlace, segment: Segment) -> Mapping[str, int]:
    """The files of a segment for the length of the progress bar; what cannot be listed is told later."""
    try:
        return place.listing(segment.id)
    except ReadError:
        return {}


def _repair(
    place: Place, found: Findings, segments: list[Segment], mended: bytes | None, *, had_root: bool
) -> tuple[list[str], int]:
    """Make the root anew if `mended` has it, and set all other damaged parts aside. Returns the names of the latter,
    and how many samples they held."""
    bad = {damage.segment for damage in found.damaged}
    lost = sum(_samples(segment) for segment in segments if segment.id in bad)
    if mended is not None:
        place.replace(DOCUMENT, mended)
        bad.discard(DOCUMENT)
    # If the root was missing, a precompute may have made one by now: leave that alone.
    names = sorted(name for name in bad if name != DOCUMENT or had_root)
    if names:
        place.set_aside([name if _is_part(name) else f"{SEGMENTS}/{name}" for name in names])
    return names, lost


def _is_part(name: str) -> bool:
    """Whether a damaged part is no segment, but a document of the root or an index."""
    return name == DOCUMENT or "/" in name


def _samples(segment: Segment) -> int:
    """The samples of a damaged segment: by its document, or else by the size of its keys."""
    try:
        return segment.summary.samples
    except (StoreError, ReadError):
        return max(0, _listed(segment.place, segment).get(f"{KEYS}/c.0.0", 0)) // KEY_BYTES


def _root(place: PatientPlace) -> tuple[Findings, Recipe | None, bytes | None]:
    """The damage of the root, its recipe, and if the root is damaged its document made anew, as far as both are known.

    Raises StoreError if another program or a newer version of the format made it, ReadError if it cannot be read.
    """
    found = Findings()
    recipe: Recipe | None = None
    mended: bytes | None = None
    try:
        problem = root_problem(place)
    except ReadError as error:
        if not error.is_damage:
            raise
        problem = str(error.cause)
    if problem is None:
        recipe, _ = read_root(place)
    else:
        found.damaged.append(Damage(DOCUMENT, DOCUMENT, problem))
        if (known := mended_root(place)) is not None:
            recipe, mended = known
    for name in (f"{group}/{DOCUMENT}" for group in GROUPS):
        try:
            sound = place.document(name) == dumps(group_document())
        except ReadError as error:
            if not error.is_damage:
                raise
            sound = False
        if not sound:
            found.damaged.append(Damage(name, name, "not the metadata of a group"))
    return found, recipe, mended


def _indexes(root: Path, segments: list[Segment]) -> Findings:
    """Find indexes that do not fit the segments."""
    found = Findings()
    known = {segment.id: segment for segment in segments}
    with storage_errors(root / INDEX):
        folders = sorted(entry for entry in (root / INDEX).iterdir() if entry.is_dir())
    for folder in folders:
        name = f"{INDEX}/{folder.name}"
        if not is_index(folder):
            found.foreign.append(name)
            continue
        try:
            problem = _index_problem(folder, known)
        except StorageError as error:
            found.unread.append(Unread(name, name, str(error)))
            continue
        if problem is not None and folder.exists():  # a newer index may have replaced it meanwhile
            found.damaged.append(Damage(name, name, problem))
    return found


def _index_problem(folder: Path, known: Mapping[str, Segment]) -> str | None:
    """The problem of an index, or None. One that names a removed segment is no problem: every reader ignores it.

    Raises StorageError if it cannot be read.
    """
    if folder.is_symlink():
        return "a link, where the store has a folder"
    try:
        with storage_errors(folder):
            summaries, level = load_one(folder)
        if any(summary.id not in known for summary in summaries):
            return None
        covered = Segments([known[summary.id] for summary in summaries], [summary.samples for summary in summaries])
        fits = all(known[summary.id].summary == summary for summary in summaries) and _agrees(level, covered)
    except GoneError:
        return None
    except ReadError as error:
        raise StorageError(str(error.cause)) from error
    except StorageError:
        raise
    except (StoreError, ValueError) as error:
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
