"""Free space: remove leftovers of dead writers and samples stored twice, and merge small segments."""

import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recycle_cli.errors import UsageError
from recycle_cli.store.budget import bytes_below
from recycle_cli.store.check import require_sound
from recycle_cli.store.dtypes import Encoded
from recycle_cli.store.files import storage_errors, sync
from recycle_cli.store.index import Positions, build
from recycle_cli.store.layout import DAMAGED, INDEX, SCRATCH, SEGMENTS
from recycle_cli.store.liveness import Claim, maintenance, remove_dead, writers
from recycle_cli.store.segment import Segment
from recycle_cli.store.store import Store
from recycle_cli.store.writer import SEGMENT_BYTES, SegmentWriter

SMALL = 8
"""A segment smaller than the target size divided by this is merged with other small ones."""

_ASIDE = re.compile(rf"({SEGMENTS}|{INDEX})-.+-[0-9]{{16,}}")

_BATCH_BYTES = 16 << 20


def gc(
    path: str, *, segment_bytes: int = SEGMENT_BYTES, damaged: bool = False, dry_run: bool = False
) -> dict[str, Any]:
    """Remove leftovers of dead writers and duplicated samples, and merge small segments.

    Returns {store, leftovers, leftover_bytes, duplicates, rewritten, removed, set_aside, freed_bytes, seconds}. With
    `damaged`, parts that `verify --repair` set aside are removed too. `dry_run` only counts. Writers may run at the
    same time. A reader that opened the store before keeps what it has mapped; for the rest it gets a GoneError that
    says to run its command again.
    Raises DamageError if a segment that would be rewritten is damaged, StorageError if another gc is running.
    """
    began = time.perf_counter()
    store = Store.open(path)
    if not store.place.is_local:
        raise UsageError(
            f"{path}: gc removes segments under a lock, which no bucket has; download the store, run "
            f"`recycle store gc` on the copy, and upload that to a new URL"
        )
    root = Path(store.place.where(""))
    with storage_errors(path), maintenance(root / SCRATCH):
        store.refresh()  # another gc may have run before we got the lock
        plan = _plan(store, segment_bytes)
        left = [writer for writer in writers(root / SCRATCH) if not writer.alive]
        aside = _folders(root / DAMAGED) if damaged else []
        freed = plan.surplus_bytes + sum(bytes_below(folder) for folder in aside)
        if not dry_run:
            left = [writer for writer in left if remove_dead(root / SCRATCH, writer.name)]
            freed += _replace(store, root, plan, segment_bytes) - plan.surplus_bytes
            _remove(root, aside)
    leftover_bytes = sum(writer.bytes for writer in left)
    return {
        "store": path,
        "leftovers": len(left),
        "leftover_bytes": leftover_bytes,
        "duplicates": plan.duplicates,
        "rewritten": len(plan.rewritten),
        "removed": len(plan.stale),
        "set_aside": len(aside),
        "freed_bytes": leftover_bytes + freed,
        "seconds": time.perf_counter() - began,
    }


@dataclass(frozen=True)
class _Plan:
    """The segments to remove (`stale`), and for every segment the numbers of the samples to keep (`kept`)."""

    stale: list[Segment]
    kept: dict[str, Positions]

    @property
    def duplicates(self) -> int:
        return sum(segment.summary.samples - len(self.kept[segment.id]) for segment in self.stale)

    @property
    def rewritten(self) -> list[Segment]:
        """Stale segments with samples to keep, which are copied to new segments."""
        return [segment for segment in self.stale if len(self.kept[segment.id])]

    @property
    def emptied(self) -> list[Segment]:
        """Stale segments without samples to keep."""
        return [segment for segment in self.stale if not len(self.kept[segment.id])]

    @property
    def surplus_bytes(self) -> int:
        """Estimated bytes of the samples to remove, by the mean size of a sample in their segments."""
        return sum(
            segment.summary.bytes
            * (segment.summary.samples - len(self.kept[segment.id]))
            // max(1, segment.summary.samples)
            for segment in self.stale
        )


def _plan(store: Store, segment_bytes: int) -> _Plan:
    """Plan to replace all segments that hold duplicates, and the small ones if there are several.

    Of samples with equal keys the one in the oldest segment stays, whatever the index says, so that two runs of gc
    would agree.
    """
    ordered = store.by_age()
    positions = np.sort(build(ordered).positions)
    parts = np.split(positions, np.searchsorted(positions, ordered.starts[1:-1]))
    kept = {
        segment.id: part - start for segment, part, start in zip(ordered.list, parts, ordered.starts_list, strict=False)
    }
    doubled = [segment for segment in ordered.list if len(kept[segment.id]) < segment.summary.samples]
    small = [
        segment for segment in ordered.list if segment.summary.bytes * SMALL < segment_bytes and segment not in doubled
    ]
    return _Plan([*doubled, *small] if len(small) + len(doubled) > 1 or doubled else [], kept)


def _replace(store: Store, root: Path, plan: _Plan, segment_bytes: int) -> int:
    """Copy the samples to keep into new segments, then remove the stale ones. Returns the bytes freed."""
    before = store.bytes
    # If there are duplicates, any segment of the store may hold the copy that stays.
    require_sound(store.segments if plan.duplicates else plan.stale, "gc")
    # Remove the emptied segments first: on a full disk that makes room to rewrite the others.
    _remove(root, [root / SEGMENTS / segment.id for segment in plan.emptied])
    _rewrite(store, plan.rewritten, plan.kept, segment_bytes)
    _remove(root, [root / SEGMENTS / segment.id for segment in plan.rewritten])
    store.refresh()
    return before - store.bytes


def _rewrite(store: Store, stale: list[Segment], kept: dict[str, Positions], segment_bytes: int) -> None:
    """Copy the samples to keep into new segments, each with the codec it has now."""
    for codec in sorted({segment.codec for segment in stale}):
        with store.writer(segment_bytes=segment_bytes, codec=codec) as writer:
            for segment in stale:
                if segment.codec == codec:
                    _copy(store, segment, kept[segment.id], writer)


def _copy(store: Store, segment: Segment, samples: Positions, writer: SegmentWriter) -> None:
    per_sample = max(1, segment.summary.bytes // max(segment.summary.samples, 1))
    step = max(1, _BATCH_BYTES // per_sample)
    for start in range(0, len(samples), step):
        local = samples[start : start + step]
        lengths = segment.offsets[local + 1] - segment.offsets[local]
        rows = {cut: _rows(store, segment, cut, local) for cut in segment.cuts}
        writer.append(segment.keys[local], segment.digests[local], lengths, rows)


def _rows(store: Store, segment: Segment, cut: str, local: Positions) -> Encoded:
    spans = [(segment.bounds[sample], segment.bounds[sample + 1]) for sample in local.tolist()]
    values = np.concatenate([segment.values(cut)[start:stop] for start, stop in spans])
    if store.recipe.dtype != "int8":
        return Encoded(values)
    return Encoded(values, np.concatenate([segment.scales(cut)[start:stop] for start, stop in spans]))


def _remove(root: Path, folders: list[Path]) -> None:
    """Remove folders that readers may be using: move each out of sight in one step, then delete its files."""
    if not folders:
        return
    claim = Claim(root / SCRATCH)
    try:
        for folder in folders:
            taken = folder.rename(claim.folder / folder.name)
            sync(folder.parent)
            if taken.is_symlink():  # it was set aside for being a link; its target is not ours to delete
                taken.unlink()
            else:
                shutil.rmtree(taken)
    finally:
        claim.release()


def _folders(parent: Path) -> list[Path]:
    """Folders that `verify --repair` set aside, by the form of their names."""
    return sorted(entry for entry in parent.iterdir() if entry.is_dir() and _ASIDE.fullmatch(entry.name))
