"""Give space back: leftovers of dead writers, duplicates between writers, segments too small to be worth a folder."""

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from recycle_cli.errors import DamageError, UsageError
from recycle_cli.store.budget import bytes_below
from recycle_cli.store.check import check_segment
from recycle_cli.store.describe import codec_of
from recycle_cli.store.dtypes import Encoded
from recycle_cli.store.files import storage_errors, sync
from recycle_cli.store.index import Positions, build
from recycle_cli.store.layout import DAMAGED, SCRATCH, SEGMENTS
from recycle_cli.store.liveness import Claim, maintenance, remove_dead, writers
from recycle_cli.store.segment import Segment
from recycle_cli.store.store import Store
from recycle_cli.store.writer import SEGMENT_BYTES, SegmentWriter

SMALL = 8
"""A segment below one eighth of the size aimed for is merged with other small ones."""

_BATCH_BYTES = 16 << 20


def gc(
    path: str, *, segment_bytes: int = SEGMENT_BYTES, damaged: bool = False, dry_run: bool = False
) -> dict[str, Any]:
    """Remove leftovers of dead writers and duplicated samples, and merge small segments.

    Gives {store, leftovers, leftover_bytes, duplicates, rewritten, removed, set_aside, freed_bytes, seconds}. With
    `damaged`, what `verify --repair` set aside goes too. `dry_run` only counts. Safe beside writers; a reader that
    opened the store before keeps what it has mapped, and is told to open it again for the rest.
    Raises DamageError where a segment that would be rewritten is damaged, StorageError where another gc is at work.
    """
    began = time.perf_counter()
    store = Store.open(path)
    if not store.place.is_local:
        raise UsageError(f"{path}: gc works on local stores; copy the store, collect there, and copy it back")
    root = Path(store.place.where(""))
    with storage_errors(path), maintenance(root / SCRATCH):
        left = [writer for writer in writers(root / SCRATCH) if not writer.alive]
        kept, stale = _plan(store, segment_bytes)
        before = store.bytes
        duplicates = sum(segment.summary.samples - len(kept[segment.id]) for segment in stale)
        replaced = len(stale)
        expected = sum(_surplus(segment, len(kept[segment.id])) for segment in stale)
        rewritten = sum(len(kept[segment.id]) > 0 for segment in stale)
        if not dry_run:
            left = [writer for writer in left if remove_dead(root / SCRATCH, writer.name)]
            _check(store if duplicates else None, stale)
            # On a full disk there is room to rewrite once those are gone of which nothing stays.
            _remove(root, [root / SEGMENTS / segment.id for segment in stale if not len(kept[segment.id])])
            stale = [segment for segment in stale if len(kept[segment.id])]
            _rewrite(store, stale, kept, segment_bytes)
            _remove(root, [root / SEGMENTS / segment.id for segment in stale])
            store.refresh()
        aside = [entry for entry in _folders(root / DAMAGED) if damaged]
        aside_bytes = sum(bytes_below(entry) for entry in aside)
        if not dry_run:
            _remove(root, aside)
    leftover_bytes = sum(writer.bytes for writer in left)
    return {
        "store": path,
        "leftovers": len(left),
        "leftover_bytes": leftover_bytes,
        "duplicates": duplicates,
        "rewritten": rewritten,
        "removed": replaced,
        "set_aside": len(aside),
        "freed_bytes": leftover_bytes + aside_bytes + (expected if dry_run else before - store.bytes),
        "seconds": time.perf_counter() - began,
    }


def _plan(store: Store, segment_bytes: int) -> tuple[dict[str, Positions], list[Segment]]:
    """Local samples to keep of each segment, and the segments that are to be replaced.

    Of equal keys the oldest segment's sample stays, whatever the index says: two collectors would agree.
    """
    ordered = store.by_age()
    level = build(ordered)
    positions = np.sort(level.positions)
    parts = np.split(positions, np.searchsorted(positions, ordered.starts[1:-1]))
    kept = {
        segment.id: part - start for segment, part, start in zip(ordered.list, parts, ordered.starts_list, strict=False)
    }
    doubled = [segment for segment in ordered.list if len(kept[segment.id]) < segment.summary.samples]
    small = [
        segment for segment in ordered.list if segment.summary.bytes * SMALL < segment_bytes and segment not in doubled
    ]
    return kept, [*doubled, *small] if len(small) + len(doubled) > 1 or doubled else []


def _surplus(segment: Segment, kept: int) -> int:
    """Bytes of the samples of a segment that go, at its mean size of a sample."""
    summary = segment.summary
    return summary.bytes * (summary.samples - kept) // max(1, summary.samples)


def _check(store: Store | None, stale: list[Segment]) -> None:
    """Read all that is relied on: with duplicates any segment may hold the copy that stays, else just the rewritten."""
    for segment in stale if store is None else store.segments:
        problems = check_segment(segment)
        if problems:
            raise DamageError(
                f"{segment.where(problems[0].file)}: {problems[0].problem}; "
                f"run `recycle store verify --repair` before gc, nothing was removed"
            )


def _rewrite(store: Store, stale: list[Segment], kept: dict[str, Positions], segment_bytes: int) -> None:
    """Seal what is to stay of the stale segments in new ones."""
    for codec in sorted({codec_of(segment) for segment in stale}):
        with store.writer(segment_bytes=segment_bytes, codec=codec) as writer:
            for segment in stale:
                if codec_of(segment) == codec:
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
    """Remove folders that readers look into: out of sight in one step each, then file by file."""
    if not folders:
        return
    claim = Claim(root / SCRATCH)
    try:
        for folder in folders:
            folder.rename(claim.folder / folder.name)
            sync(folder.parent)
            shutil.rmtree(claim.folder / folder.name)
    finally:
        claim.release()


def _folders(parent: Path) -> list[Path]:
    return sorted(entry for entry in parent.iterdir() if entry.is_dir()) if parent.is_dir() else []
