"""Make room: remove whole segments, whatever they hold, and what dead writers have left."""

from collections.abc import Sequence
from pathlib import Path

from recycle_cli.store.files import storage_errors
from recycle_cli.store.layout import SCRATCH, SEGMENTS
from recycle_cli.store.liveness import maintenance, remove_dead, writers
from recycle_cli.store.rewrite import remove_folders, require_local
from recycle_cli.store.store import Store


def evict(store: Store, segments: Sequence[str]) -> None:
    """Remove the segments with these ids, as far as they are still there. Readers keep what they have mapped, and get a
    GoneError for the rest. Raises UsageError for a bucket, StorageError if a gc is at work or the disk fails."""
    require_local(store, "gc")
    root = Path(store.place.where(""))
    with storage_errors(store.path), maintenance(root / SCRATCH):
        remove_folders(root, [folder for name in segments if (folder := root / SEGMENTS / name).is_dir()])


def remove_leftovers(store: Store) -> None:
    """Remove what writers that were killed have left. Raises as `evict`."""
    require_local(store, "gc")
    root = Path(store.place.where(""))
    with storage_errors(store.path), maintenance(root / SCRATCH):
        for writer in writers(root / SCRATCH):
            if not writer.alive:
                remove_dead(root / SCRATCH, writer.name)
