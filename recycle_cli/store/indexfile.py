"""The merged index on disk. It is derived data, written atomically, and used only if all its segments exist."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recycle_cli.disk import sync, sync_tree
from recycle_cli.errors import StoreError
from recycle_cli.store.files import map_file, read_document, write_file
from recycle_cli.store.index import Level
from recycle_cli.store.layout import (
    DOCUMENT,
    FORMAT_VERSION,
    INDEX,
    SCRATCH,
    ArraySpec,
    array_document,
    dumps,
    group_document,
    is_name,
    loads,
    sealed,
    unsealed,
)
from recycle_cli.store.liveness import Claim, is_unique_id, unique_id
from recycle_cli.store.segment import Summary

PERSIST_SAMPLES = 200_000
"""With fewer samples than this outside the index on disk, sorting them at each opening is quicker than saving them."""

_HIGH, _POSITIONS = "high", "positions"


def load(path: Path, present: Sequence[str]) -> tuple[list[Summary], Level] | None:
    """Load the newest sound index below `path` whose segments are all `present`, or return None."""
    folder = path / INDEX
    names = [entry.name for entry in folder.iterdir() if not entry.is_symlink()] if folder.is_dir() else []
    there = set(present)
    for name in sorted(filter(is_name, names), reverse=True):
        try:
            summaries, level = load_one(folder / name)
        except (StoreError, OSError, ValueError):
            continue  # damaged or just being replaced; an index can always be built again
        if there.issuperset(summary.id for summary in summaries):
            return summaries, level
    return None


def save(path: Path, summaries: Sequence[Summary], level: Level) -> None:
    """Write a new index and remove all older ones. Errors of the operating system are raised as they are."""
    claim = Claim(path / SCRATCH)
    try:
        draft = claim.folder / unique_id()
        _write(draft, summaries, level)
        draft.rename(path / INDEX / draft.name)
        sync(path / INDEX)
    finally:
        claim.release()
    for entry in (path / INDEX).iterdir():
        if entry.is_dir() and entry.name < draft.name and is_index(entry):
            shutil.rmtree(entry, ignore_errors=True)


def is_index(folder: Path) -> bool:
    """Whether a folder is an index, whole or not, and not something else, by the form of its name."""
    return is_unique_id(folder.name)


def load_one(folder: Path) -> tuple[list[Summary], Level]:
    """Map the index in `folder`. Raises StoreError or ValueError if it is not sound."""
    record = unsealed(loads(read_document(folder / DOCUMENT), str(folder)), str(folder))
    try:
        summaries = [_summary(*row) for row in record["segments"]]
        version, count = record["version"], record["keys"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"not an index of this format ({type(error).__name__}: {error})") from None
    if version != FORMAT_VERSION:
        raise ValueError(f"format version {version}")
    if type(count) is not int or not 0 <= count <= sum(summary.samples for summary in summaries):
        raise ValueError("more keys than samples")
    high, positions = (
        map_file(folder / name / "c.0", count * 8).view(dtype) for name, dtype in ((_HIGH, "<u8"), (_POSITIONS, "<i8"))
    )
    return summaries, Level(high, positions)


def _summary(name: Any, *counts: Any) -> Summary:
    """A segment's summary as the index's document lists it, checked."""
    sound = isinstance(name, str) and is_name(name)
    if not sound or not all(type(count) is int and 0 <= count < 1 << 62 for count in counts):
        raise ValueError(f"{[name, *counts]!r:.100} in an index")
    return Summary(name, *counts)


def _write(folder: Path, summaries: Sequence[Summary], level: Level) -> None:
    record = {
        "version": FORMAT_VERSION,
        "keys": len(level),
        "segments": [[summary.id, summary.samples, summary.rows, summary.bytes] for summary in summaries],
    }
    for name, array in ((_HIGH, level.high), (_POSITIONS, level.positions)):
        (folder / name).mkdir(parents=True)
        write_file(folder / name / "c.0", array)
        document = array_document(ArraySpec(array.shape, array.dtype.str, dimensions=("key",)))
        write_file(folder / name / DOCUMENT, dumps(document))
    write_file(folder / DOCUMENT, dumps(sealed(group_document({"recycle": record}))))
    sync_tree(folder)
