"""Replace segments: seal copies of the samples to keep, then remove the old segments. A crash in between costs space.

Readers that have opened the store keep what they have mapped, and writers may go on.
"""

import errno
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recycle_cli.disk import sync
from recycle_cli.errors import UsageError
from recycle_cli.keys import KEY_BYTES
from recycle_cli.recipe import has_scales
from recycle_cli.store.check import require_sound
from recycle_cli.store.dtypes import EncodedRows
from recycle_cli.store.index import Positions, Segments, among, build
from recycle_cli.store.layout import SCRATCH, SEGMENTS
from recycle_cli.store.liveness import Claim
from recycle_cli.store.segment import Segment, origins_of, values_name
from recycle_cli.store.store import Store
from recycle_cli.store.writer import SegmentWriter

_BATCH_BYTES = 16 << 20

NFS_OPEN = ".nfs"
"""How the names begin that NFS gives to removed files which are still open."""


@dataclass(frozen=True)
class RewritePlan:
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
        """Estimated bytes of the samples to remove, by the mean size of a row in their segments."""
        return sum(_surplus(segment, self.kept[segment.id]) for segment in self.stale)


def _surplus(segment: Segment, kept: Positions) -> int:
    if len(kept) == segment.summary.samples:
        return 0
    lengths = np.diff(segment.offsets)
    rows = int(lengths.sum())
    return segment.summary.bytes * (rows - int(lengths[kept].sum())) // max(1, rows)


def require_local(store: Store, command: str) -> None:
    """Raise UsageError if the store lies in a bucket: removing segments takes a lock, which no bucket has."""
    if not store.place.is_local:
        raise UsageError(
            f"{store.path}: {command} removes segments under a lock, which no bucket has; download the store, run "
            f"`recycle store {command}` on the copy, and upload that to a new URL"
        )


def unique_in(ordered: Segments) -> dict[str, Positions]:
    """The numbers of the samples of each segment, by its id, that no segment before it has."""
    positions = np.sort(build(ordered).positions)
    parts = np.split(positions, np.searchsorted(positions, ordered.starts[1:-1]))
    return {
        segment.id: part - start for segment, part, start in zip(ordered.list, parts, ordered.starts_list, strict=False)
    }


def replace(store: Store, plan: RewritePlan, segment_bytes: int, purpose: str) -> int:
    """Copy the samples to keep into new segments, then remove the stale ones. Returns the bytes freed."""
    root, before = Path(store.place.where("")), store.bytes
    require_sound([*plan.rewritten, *_relied_on(store, plan)], purpose)
    # Remove the emptied segments first: on a full disk that makes room to rewrite the others.
    remove_folders(root, [root / SEGMENTS / segment.id for segment in plan.emptied])
    rewrite(store, plan.rewritten, plan.kept, segment_bytes)
    remove_folders(root, [root / SEGMENTS / segment.id for segment in plan.rewritten])
    store.refresh()
    return before - store.bytes


def _relied_on(store: Store, plan: RewritePlan) -> list[Segment]:
    """The segments that stay as they are and hold a copy of a sample that the plan drops."""
    doubled = [segment for segment in plan.stale if len(plan.kept[segment.id]) < segment.summary.samples]
    dropped = [np.delete(segment.keys_once(), plan.kept[segment.id], axis=0) for segment in doubled]
    keys = np.concatenate([np.empty((0, KEY_BYTES), np.uint8), *dropped])
    stale = {segment.id for segment in plan.stale}
    return [segment for segment in store.segments if segment.id not in stale and among(segment, keys).any()]


def rewrite(store: Store, stale: list[Segment], kept: dict[str, Positions], segment_bytes: int) -> None:
    """Copy the samples to keep into new segments, each with the codec it has now."""
    for codec in sorted({segment.codec for segment in stale}):
        alike = [segment for segment in stale if segment.codec == codec]
        with store.writer(segment_bytes=segment_bytes, codec=codec, origins=origins_of(alike)) as writer:
            for segment in alike:
                copy_samples(store, segment, kept[segment.id], writer)
                segment.release()  # there may be more segments than a process may have maps


def copy_samples(store: Store, segment: Segment, samples: Positions, writer: SegmentWriter) -> None:
    """Append samples of a segment, by their numbers there, to a writer of a store of the same recipe."""
    per_sample = max(1, segment.summary.bytes // max(segment.summary.samples, 1))
    step = max(1, _BATCH_BYTES // per_sample)
    for start in range(0, len(samples), step):
        local = samples[start : start + step]
        lengths = segment.offsets[local + 1] - segment.offsets[local]
        rows = {cut: _rows(store, segment, cut, local) for cut in segment.cuts}
        writer.append(segment.keys[local], segment.digests[local], lengths, rows)


def _rows(store: Store, segment: Segment, cut: str, local: Positions) -> EncodedRows:
    spans = [(segment.bounds[sample], segment.bounds[sample + 1]) for sample in local.tolist()]
    values = np.concatenate([segment.values(cut)[start:stop] for start, stop in spans])
    if not has_scales(store.recipe.dtype):
        return EncodedRows(values)
    scales = np.concatenate([segment.scales(cut)[start:stop] for start, stop in spans])
    return EncodedRows(values, scales, segment.specs[values_name(cut)].packed)


def remove_folders(root: Path, folders: list[Path]) -> None:
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
                remove_tree(taken)
    finally:
        claim.release()


def remove_tree(folder: Path) -> None:
    """Remove a folder with all that is in it. What NFS keeps of a file that this host has open or mapped (`.nfs...`)
    goes when it is closed, and the folder around it with the next gc."""

    def failed(function: Any, path: str, problem: Any) -> None:
        error: Any = problem if isinstance(problem, BaseException) else problem[1]
        left = [name for _, _, files in os.walk(path) for name in files]
        if error.errno not in (errno.ENOTEMPTY, errno.EBUSY) or not all(name.startswith(NFS_OPEN) for name in left):
            raise error

    told: dict[str, Any] = {"onexc" if sys.version_info >= (3, 12) else "onerror": failed}
    shutil.rmtree(folder, **told)
