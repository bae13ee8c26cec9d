"""The operations that a store needs of the place where it lies, and local folders; `remote.py` has buckets."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from recycle_cli.disk import sync
from recycle_cli.errors import DamageError, GoneError, StoreError
from recycle_cli.store.budget import bytes_below
from recycle_cli.store.chunked import Bytes
from recycle_cli.store.files import FileBytes, map_file, read_document, storage_errors, write_file
from recycle_cli.store.layout import DAMAGED, DOCUMENT, INDEX, SCRATCH, SEGMENTS, dumps, group_document, is_name
from recycle_cli.store.liveness import Claim, Writer, maintenance, unique_id, writers

SEGMENT_PARTS = frozenset({DOCUMENT, "keys", "digests", "offsets", "cuts"})
"""Entries of a segment's folder. A folder with none of them is not a segment, not even a damaged one."""

LINK = -1
"""The size that `listing` reports for a link. No sealed file has it."""


class Drafts(Protocol):
    """A writer's private folder. `publish` makes a segment that was built there visible."""

    folder: Path

    def ready(self) -> Path: ...

    def publish(self, draft: Path) -> None: ...

    def release(self) -> None: ...


class ReadablePlace(Protocol):
    """What reading a store needs. Names are relative, with `/`; an OSError becomes a StorageError."""

    is_local: bool

    def where(self, name: str) -> str: ...

    def is_store(self) -> bool: ...

    def has_begun(self) -> bool: ...

    def document(self, name: str) -> bytes: ...

    def whole(self, name: str, size: int) -> npt.NDArray[np.uint8]: ...

    def ranged(self, name: str, size: int) -> Bytes: ...

    def segment_names(self) -> list[str]: ...

    def is_segment(self, name: str) -> bool: ...

    def listing(self, segment: str) -> Mapping[str, int]: ...

    def foreign(self) -> list[str]: ...


class Place(ReadablePlace, Protocol):
    """The operations a store needs."""

    def uncached(self) -> "Place": ...

    def begin(self) -> None: ...

    def create(self, name: str, data: bytes) -> None: ...

    def replace(self, name: str, data: bytes) -> None: ...

    def drafts(self) -> Drafts: ...

    def bytes_used(self) -> int: ...

    def set_aside(self, names: list[str]) -> None: ...

    def unfinished(self) -> list[Writer]: ...

    def aside(self) -> list[str]: ...


@runtime_checkable
class Bucket(Protocol):
    """A place without locks, where only what nobody can be writing is removed."""

    def remove_unfinished(self, name: str, *, dry_run: bool) -> int: ...

    def remove_aside(self, name: str, *, dry_run: bool) -> int: ...


class LocalPlace:
    """A local folder. Files are mapped, a rename publishes a segment, and links below the folder are never followed."""

    is_local = True

    def __init__(self, path: str) -> None:
        with storage_errors(path):
            self.root = Path(path).resolve()
            links = [group for group in (SEGMENTS, SCRATCH, INDEX, DAMAGED) if (self.root / group).is_symlink()]
        if links:  # gc would remove somebody else's files through it
            raise DamageError(f"{self.root / links[0]}: a link where the store has a folder; refused")

    def where(self, name: str) -> str:
        return str(self.root / name) if name else str(self.root)

    def uncached(self) -> "LocalPlace":
        """This place: a local folder is read without a cache of ours."""
        return self

    def is_store(self) -> bool:
        with storage_errors(self.root):
            return (self.root / DOCUMENT).exists()

    def has_begun(self) -> bool:
        """Whether there are segments here, even if the root is gone."""
        return (self.root / SEGMENTS).is_dir() and bool(self.segment_names())

    def document(self, name: str) -> bytes:
        path = self._inside(name)
        with storage_errors(path), self._gone(name):
            return read_document(path)

    def whole(self, name: str, size: int) -> npt.NDArray[np.uint8]:
        path = self._inside(name)
        with storage_errors(path), self._gone(name):
            return map_file(path, size)

    def ranged(self, name: str, size: int) -> Bytes:
        path = self._inside(name)
        with storage_errors(path), self._gone(name):
            return FileBytes(path, size, partial(self._gone, name))

    def segment_names(self) -> list[str]:
        """Names of the sealed segments from oldest to newest; only folder names are read. Links are refused later."""
        with storage_errors(self.root), os.scandir(self.root / SEGMENTS) as entries:
            return sorted(
                entry.name for entry in entries if is_name(entry.name) and (entry.is_symlink() or entry.is_dir())
            )

    def is_segment(self, name: str) -> bool:
        """Whether anything in the folder says that it is a segment, and not a folder that somebody put there."""
        folder = self.root / SEGMENTS / name
        with storage_errors(folder), suppress(FileNotFoundError):
            return folder.is_symlink() or not SEGMENT_PARTS.isdisjoint(entry.name for entry in folder.iterdir())
        return True  # removed since it was listed

    def foreign(self) -> list[str]:
        """Names of what lies among the segments and is none."""
        names = set(filter(self.is_segment, self.segment_names())) | {DOCUMENT}
        with storage_errors(self.root), os.scandir(self.root / SEGMENTS) as entries:
            return sorted(
                f"{SEGMENTS}/{entry.name}"
                for entry in entries
                if entry.name not in names and not entry.name.startswith(f".{DOCUMENT}-")
            )

    def listing(self, segment: str) -> Mapping[str, int]:
        """Sizes of all files and links below a segment, by their path within it."""
        folder = self.root / SEGMENTS / segment
        found: dict[str, int] = {}
        with storage_errors(folder):
            for parent, folders, files in os.walk(folder, onerror=_unless_gone):
                for path in (Path(parent) / name for name in (*folders, *files)):
                    with suppress(FileNotFoundError):  # removed since it was listed
                        if path.is_symlink():
                            found[path.relative_to(folder).as_posix()] = LINK
                        elif path.name in files:
                            found[path.relative_to(folder).as_posix()] = path.lstat().st_size
        return found

    def begin(self) -> None:
        """Make the folders of an empty store. Raises StoreError if the folder holds something else."""
        with storage_errors(self.root):
            if self.root.exists() and (not self.root.is_dir() or not self._only_beginnings()):
                raise StoreError(f"{self.root}: not a store, and not empty; choose a new folder")
            for group in (SEGMENTS, SCRATCH, INDEX, DAMAGED):
                (self.root / group).mkdir(parents=True, exist_ok=True)
            sync(self.root.parent)

    def create(self, name: str, data: bytes) -> None:
        """Create a file in one step, unless it exists. If several processes try at once, one of them wins."""
        path = self._inside(name)
        scratch = path.with_name(f".{DOCUMENT}-{unique_id()}")
        with storage_errors(path):
            try:
                write_file(scratch, data)
                sync(scratch)
                try:
                    os.link(scratch, path)
                except FileExistsError:
                    pass
                except OSError:  # no hard links here: if several try at the same instant, the last one wins
                    if not path.exists():
                        scratch.replace(path)
            finally:
                scratch.unlink(missing_ok=True)
            sync(path.parent)

    def replace(self, name: str, data: bytes) -> None:
        """Replace a damaged document in one step; a copy of the old one goes to `damaged/`."""
        path = self._inside(name)
        kept = self.root / DAMAGED / f"{name.replace('/', '-')}-{time.time_ns()}"
        scratch = path.with_name(f".{DOCUMENT}-{unique_id()}")
        with storage_errors(path), maintenance(self.root / SCRATCH):
            try:
                for copy, content in ((kept, path.read_bytes()), (scratch, data)):
                    write_file(copy, content)
                    sync(copy)
                sync(kept.parent)
                scratch.replace(path)
                sync(path.parent)
            finally:
                scratch.unlink(missing_ok=True)

    def drafts(self) -> Drafts:
        with storage_errors(self.root):
            return LocalDrafts(self.root)

    def bytes_used(self) -> int:
        return bytes_below(self.root)

    def set_aside(self, names: list[str]) -> None:
        """Move parts of the store to `damaged/`, each in one atomic step."""
        aside = self.root / DAMAGED
        with storage_errors(aside), maintenance(self.root / SCRATCH):
            for name in names:
                source = self.root / name
                if source.exists() or source.is_symlink():
                    source.rename(aside / f"{name.replace('/', '-')}-{time.time_ns()}")
                    sync(source.parent)
                if name.endswith(f"/{DOCUMENT}"):
                    self.create(name, dumps(group_document()))
            sync(aside)

    def unfinished(self) -> list[Writer]:
        """Running writers, and leftovers of dead ones."""
        with storage_errors(self.root):
            return writers(self.root / SCRATCH)

    def aside(self) -> list[str]:
        """Names of the parts that `verify --repair` set aside."""
        folder = self.root / DAMAGED
        with storage_errors(folder):
            entries = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
        return [name for name in entries if name != DOCUMENT]

    @contextmanager
    def _gone(self, name: str) -> Iterator[None]:
        """Raise GoneError instead of DamageError if the whole segment was removed since the store was opened."""
        try:
            yield
        except DamageError:
            top, _, rest = name.partition("/")
            segment = self.root / top / rest.partition("/")[0]
            if top == SEGMENTS and not segment.exists():
                raise GoneError(
                    f"{segment}: removed since the store was opened, by `gc` or `verify --repair`; run the "
                    "command again"
                ) from None
            raise

    def _inside(self, name: str) -> Path:
        """The path of `name`. Raises DamageError if a link leads out of the store."""
        path = self.root / name
        if os.path.realpath(path) != str(path):
            raise DamageError(f"{path}: leads out of the store through a link; refused")
        return path

    def _only_beginnings(self) -> bool:
        """Whether the folder is empty or holds only parts of a store.

        The root is missing if making the store was interrupted or a damaged root was set aside. It exists if another
        writer has made it since this one looked.
        """
        known = (SEGMENTS, SCRATCH, INDEX, DAMAGED, DOCUMENT)
        return all(entry.name in known or entry.name.startswith(f".{DOCUMENT}-") for entry in self.root.iterdir())


def _unless_gone(error: OSError) -> None:
    """Raise what kept a folder from being listed: its files are not missing, nobody knows."""
    if not isinstance(error, FileNotFoundError):
        raise error


class LocalDrafts(Claim):
    """A scratch folder on the store's own file system, so that a segment is published by a rename."""

    def __init__(self, root: Path) -> None:
        super().__init__(root / SCRATCH)
        self._segments = root / SEGMENTS

    def publish(self, draft: Path) -> None:
        """Make a synced draft visible and durable. Errors of the operating system are raised as they are."""
        sealed = self._segments / draft.name
        try:
            draft.rename(sealed)
        except FileNotFoundError:
            # A server whose answer was lost is asked again, and then finds nothing to rename. No other has this name.
            if draft.exists() or not sealed.is_dir():
                raise
        sync(self._segments, draft.parent)
