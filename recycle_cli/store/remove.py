"""Remove samples for good: the segments that hold them are replaced by ones without them."""

import time
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from recycle_cli.errors import StoreError
from recycle_cli.keys import KEY_BYTES, Bytes16
from recycle_cli.store.check import require_keys
from recycle_cli.store.files import storage_errors
from recycle_cli.store.index import Segments, among
from recycle_cli.store.indexfile import is_index, load_one
from recycle_cli.store.layout import INDEX, SCRATCH
from recycle_cli.store.liveness import maintenance, writers
from recycle_cli.store.rewrite import RewritePlan, remove_folders, replace, require_local, unique_in
from recycle_cli.store.store import Store
from recycle_cli.store.writer import SEGMENT_BYTES

Mask = npt.NDArray[np.bool_]


def remove(
    store: Store, keys: Iterable[Bytes16], *, dry_run: bool = False, segment_bytes: int = SEGMENT_BYTES
) -> dict[str, Any]:
    """Remove all copies of the samples with these keys (batches (n, 16)); `dry_run` only counts.

    Returns {store, asked, samples, copies, rewritten, removed, freed_bytes, set_aside, writers, seconds}: the different
    keys asked for, how many of them the store held, their copies, the segments replaced and removed, and the places
    that may hold them still, which are parts that `verify --repair` set aside (by name) and writers at work (a count).
    Crash-safe as gc is: a run that was cut short is completed by the next. Writers and readers may be at work, as
    with gc. Raises UsageError for a bucket, StorageError if another maintenance is running, DamageError if keys are
    damaged, or a segment that must be rewritten or that holds a further copy of a sample that stays.
    """
    began = time.perf_counter()
    require_local(store, "remove")
    wanted = np.unique(np.concatenate([np.empty((0, KEY_BYTES), np.uint8), *keys]), axis=0)
    root = Path(store.place.where(""))
    with storage_errors(store.path), nullcontext() if dry_run else maintenance(root / SCRATCH):
        done = _without(store, wanted, segment_bytes, dry_run=dry_run)
        if not dry_run:
            remove_folders(root, _stale_indexes(root, store))
        at_work = sum(writer.alive for writer in writers(root / SCRATCH))
    return {
        "store": store.path,
        "asked": len(wanted),
        "samples": len(done.keys),
        "copies": done.copies,
        "rewritten": done.rewritten,
        "removed": done.removed,
        "freed_bytes": done.freed_bytes,
        "set_aside": store.place.aside(),
        "writers": at_work,
        "seconds": time.perf_counter() - began,
    }


@dataclass
class _Done:
    """Counts of a removal: the keys removed, their copies, and the segments rewritten and removed."""

    keys: Bytes16
    copies: int = 0
    rewritten: int = 0
    removed: int = 0
    freed_bytes: int = 0

    def add(self, plan: RewritePlan, masks: Mapping[str, Mask]) -> None:
        """Count what a plan removes; `masks` are of the samples to remove in each segment."""
        found = (segment.keys[masks[segment.id]] for segment in plan.stale)
        self.keys = np.unique(np.concatenate([self.keys, *found]), axis=0)
        self.copies += int(sum(mask.sum() for mask in masks.values()))
        self.rewritten += len(plan.rewritten)
        self.removed += len(plan.stale)


def _without(store: Store, wanted: Bytes16, segment_bytes: int, *, dry_run: bool) -> _Done:
    """Replace segments until none holds a wanted key."""
    done = _Done(wanted[:0])
    while True:
        # Another maintenance may have run before we got the lock, and a writer may have published meanwhile.
        store.refresh()
        require_keys(store.segments, "remove")
        masks = {segment.id: among(segment, wanted) for segment in store.segments}
        plan = _plan(store, masks)
        done.add(plan, masks)
        if dry_run or not plan.stale:
            done.freed_bytes += plan.surplus_bytes
            return done
        done.freed_bytes += replace(store, plan, segment_bytes, "remove")


def _plan(store: Store, masks: dict[str, Mask]) -> RewritePlan:
    """Plan to replace the segments that hold wanted samples, by the samples of theirs that no other segment holds.

    So a run that was cut short after it had sealed the replacement does not seal a second one.
    """
    segments = store.by_age().list
    stale = [segment for segment in segments if masks[segment.id].any()]
    ordered = [*(segment for segment in segments if not masks[segment.id].any()), *stale]
    unique = unique_in(Segments(ordered, [segment.summary.samples for segment in ordered]))
    return RewritePlan(
        stale, {segment.id: unique[segment.id][~masks[segment.id][unique[segment.id]]] for segment in stale}
    )


def _stale_indexes(root: Path, store: Store) -> list[Path]:
    """Indexes over segments that are gone: they hold halves of the removed keys, and no reader uses them."""
    there = {segment.id for segment in store.segments}
    found = []
    for folder in (entry for entry in (root / INDEX).iterdir() if entry.is_dir() and is_index(entry)):
        try:
            summaries, _ = load_one(folder)
        except (StoreError, ValueError):
            continue  # damaged, or replaced just now
        if not there.issuperset(summary.id for summary in summaries):
            found.append(folder)
    return found
