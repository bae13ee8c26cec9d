"""Copy what another store of the same recipe holds and this one lacks."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recycle_cli.errors import UsageError
from recycle_cli.store.check import Progress, require_sound
from recycle_cli.store.places import open_place
from recycle_cli.store.rewrite import copy_samples, unique_in
from recycle_cli.store.root import read_root
from recycle_cli.store.segment import origins_of
from recycle_cli.store.store import Store
from recycle_cli.store.writer import SEGMENT_BYTES, SegmentWriter


def merge(
    path: str, into: str, *, segment_bytes: int = SEGMENT_BYTES, progress: Progress | None = None
) -> dict[str, Any]:
    """Copy the samples of the store `path` that the store `into` lacks; `into` is made if it is not there.

    Returns {store, into, samples, added, present, rows, bytes, seconds}: the samples of `path`, how many of them were
    added and how many `into` held before, and the rows and bytes added. `path` is only read, and a segment is checked
    before rows of it are copied. What is sealed stays: a run that was cut short is completed by the next, and nothing
    is stored twice. `progress` is called with the samples done and their total.
    Raises MismatchError, which names the field, if the recipes differ, DamageError if a segment of `path` is damaged.
    """
    began = time.perf_counter()
    place = open_place(path).uncached()
    source = Store(path, place, *read_root(place))
    if _same(place.where(""), open_place(into).where("")):
        raise UsageError(f"{into}: the same store as {path}; name another")
    target = Store.create_or_open(into, source.recipe, source.provenance)
    writers = list(_copied(source, target, segment_bytes, progress))
    added = sum(writer.samples for writer in writers)
    return {
        "store": path,
        "into": into,
        "samples": len(source),
        "added": added,
        "present": len(source) - added,
        "rows": sum(writer.rows for writer in writers),
        "bytes": sum(writer.bytes for writer in writers),
        "seconds": time.perf_counter() - began,
    }


def _copied(source: Store, target: Store, segment_bytes: int, progress: Progress | None) -> Iterator[SegmentWriter]:
    """Copy what the target lacks. Yields the writer of each codec of the source when all with that codec is sealed."""
    ordered = source.by_age()
    unique, done = unique_in(ordered), 0
    for codec in sorted({segment.codec for segment in ordered.list}):
        alike = [segment for segment in ordered.list if segment.codec == codec]
        with target.writer(segment_bytes=segment_bytes, codec=codec, origins=origins_of(alike)) as writer:
            for segment in alike:
                local = unique[segment.id]
                lacking = local[target.lookup(segment.keys[local], segment.digests[local]) < 0]
                if len(lacking):
                    require_sound([segment], "merge")
                    copy_samples(source, segment, lacking, writer)
                segment.release()
                done += len(local)
                if progress is not None:
                    progress(done, len(source))
        yield writer


def _same(one: str, other: str) -> bool:
    """Whether two places are one, also through another name of the folder."""
    if one == other:
        return True
    local = [Path(path) for path in (one, other) if "://" not in path]
    return len(local) == 2 and all(path.exists() for path in local) and local[0].samefile(local[1])
