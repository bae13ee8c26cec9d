"""Free space: remove leftovers of dead writers and samples stored twice, and merge small segments."""

import re
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from recycle_cli.reports import counted, say
from recycle_cli.store.budget import bytes_below
from recycle_cli.store.files import storage_errors
from recycle_cli.store.layout import DAMAGED, INDEX, SCRATCH, SEGMENTS
from recycle_cli.store.liveness import maintenance, remove_dead, writers
from recycle_cli.store.place import Bucket
from recycle_cli.store.rewrite import RewritePlan, remove_folders, replace, require_local, unique_in
from recycle_cli.store.store import Store
from recycle_cli.store.writer import SEGMENT_BYTES

SMALL = 8
"""A segment smaller than the target size divided by this is merged with other small ones."""

_ASIDE = re.compile(rf"({SEGMENTS}|{INDEX})-.+-[0-9]{{16,}}")


def gc(
    path: str, *, segment_bytes: int = SEGMENT_BYTES, damaged: bool = False, dry_run: bool = False
) -> dict[str, Any]:
    """Remove leftovers of dead writers and duplicated samples, and merge small segments.

    Returns {store, leftovers, leftover_bytes, duplicates, rewritten, removed, set_aside, freed_bytes, seconds}. With
    `damaged`, parts that `verify --repair` set aside are removed too. `dry_run` only counts. Writers may run at the
    same time. A reader that opened the store before keeps what it has mapped; for the rest it gets a GoneError that
    says to run its command again. In a bucket, which has no locks, no segment is touched: what goes are uploads that
    were given up a day ago or earlier.
    Raises DamageError if a segment that would be rewritten is damaged, StorageError if another gc is running.
    """
    began = time.perf_counter()
    store = Store.open(path)
    if isinstance(store.place, Bucket):
        return _gc_of_bucket(store, store.place, began, damaged=damaged, dry_run=dry_run)
    require_local(store, "gc")
    root = Path(store.place.where(""))
    with storage_errors(path), nullcontext() if dry_run else maintenance(root / SCRATCH):
        store.refresh()  # another gc may have run before we got the lock
        plan = _plan(store, segment_bytes)
        left = [writer for writer in writers(root / SCRATCH) if not writer.alive]
        aside = _folders(root / DAMAGED) if damaged else []
        surplus = plan.surplus_bytes
        freed = surplus + sum(bytes_below(folder) for folder in aside)
        if not dry_run:
            left = [writer for writer in left if remove_dead(root / SCRATCH, writer.name)]
            freed += replace(store, plan, segment_bytes, "gc") - surplus
            remove_folders(root, aside)
    counts = {"duplicates": plan.duplicates, "rewritten": len(plan.rewritten), "removed": len(plan.stale)}
    return _report(path, began, [writer.bytes for writer in left], counts, len(aside), freed)


def _gc_of_bucket(store: Store, bucket: Bucket, began: float, *, damaged: bool, dry_run: bool) -> dict[str, Any]:
    left = [bucket.remove_unfinished(upload.name, dry_run=dry_run) for upload in store.place.unfinished()]
    aside = [bucket.remove_aside(name, dry_run=dry_run) for name in store.place.aside()] if damaged else []
    counts = {"duplicates": 0, "rewritten": 0, "removed": 0}
    if doubled := store.copies:
        say(
            f"{store.path}: {counted(doubled, 'sample')} stored twice stay, since no bucket has the lock under which "
            "segments are replaced; to drop them, run gc on a copy in a folder, and upload that to a new URL"
        )
    return _report(store.path, began, [size for size in left if size], counts, len(aside), sum(aside))


def _report(
    path: str, began: float, leftovers: list[int], counts: dict[str, int], aside: int, freed: int
) -> dict[str, Any]:
    """The result of a gc. `leftovers`: the bytes of each; `freed`: the bytes of all else that was removed."""
    return {
        "store": path,
        "leftovers": len(leftovers),
        "leftover_bytes": sum(leftovers),
        **counts,
        "set_aside": aside,
        "freed_bytes": sum(leftovers) + freed,
        "seconds": time.perf_counter() - began,
    }


def _plan(store: Store, segment_bytes: int) -> RewritePlan:
    """Plan to replace all segments that hold duplicates, and the small ones if there are several.

    Of samples with equal keys the one in the oldest segment stays, whatever the index says, so that two runs of gc
    would agree.
    """
    ordered = store.by_age()
    kept = unique_in(ordered)
    doubled, small = [], []
    for segment in ordered.list:
        if len(kept[segment.id]) < segment.summary.samples:
            doubled.append(segment)
        elif segment.summary.bytes * SMALL < segment_bytes:
            small.append(segment)
    return RewritePlan([*doubled, *small] if len(small) + len(doubled) > 1 or doubled else [], kept)


def _folders(parent: Path) -> list[Path]:
    """Folders that `verify --repair` set aside, by the form of their names."""
    return sorted(entry for entry in parent.iterdir() if entry.is_dir() and _ASIDE.fullmatch(entry.name))
