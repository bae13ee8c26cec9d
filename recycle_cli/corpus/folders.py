"""Trees of files that are a record each: one folder a class, or folders without classes."""

import os
import re
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from recycle_cli.corpus.boundary import reading
from recycle_cli.corpus.records import Reader, Record
from recycle_cli.errors import DataError
from recycle_cli.reports import say

SYSTEMS_OWN = "@#$~"
"""Folders whose names begin with one of these marks belong to a file system or a server, such as the thumbnails and
trash folders of network drives. They are passed over, and a line says so."""


@dataclass(frozen=True)
class FileKind:
    """The kind of the files in a tree.

    noun      the word for one of them in messages
    column    the column of the record that holds it
    example   the name of a file, for messages
    expected  the names that such files have, for messages
    takes     whether a file of this name is of the kind
    value     the value of the column for a file; raises DataError
    """

    noun: str
    column: str
    example: str
    expected: str
    takes: Callable[[str], bool]
    value: Callable[[Path], Any]

    @property
    def no_classes(self) -> str:
        """Why files without folders of classes have no labels."""
        return f"{self.noun}s without folders of classes have no labels; expected FOLDER/CLASS/{self.noun.upper()}"


def class_folders(roots: Sequence[str], kind: FileKind) -> Reader:
    """The reader of one folder, or of several as one corpus."""
    trees = tuple(ClassFolder(root, kind) for root in roots)
    return trees[0] if len(trees) == 1 else ClassFolders(trees)


@dataclass(frozen=True)
class ClassFolder:
    """`root/CLASS/.../file`, classes and files in sorted order; a file's id is its path below `root`.

    Raises DataError if there is no file of the kind, or if some lie beside the folders of the classes.
    """

    root: str
    kind: FileKind
    _passed: set[str] = field(default_factory=set, compare=False)

    @property
    def name(self) -> str:
        """The folder."""
        return self.root

    @property
    def total(self) -> int | None:
        """Files in all."""
        seen = self._seen()
        return sum(1 for folder in self._folders for _ in self._files(folder, seen))

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Names of the folders in `root`; none if the files lie in `root` itself."""
        root, noun = Path(self.root), self.kind.noun
        try:
            entries = sorted(entry for entry in root.iterdir() if not entry.name.startswith("."))
        except OSError as error:
            raise DataError(f"{self.root}: cannot be read ({error.strerror})") from error
        folders = tuple(entry.name for entry in entries if entry.is_dir() and not self._passes_over(entry.name))
        bare = next((entry for entry in entries if self.kind.takes(entry.name) and entry.is_file()), None)
        if folders and bare:
            raise DataError(
                f"{self.root}: {bare.name} lies beside the folders of the classes; move it into one of them"
            )
        if not folders and not bare:
            raise DataError(
                f"{self.root}: holds no {noun}; expected {Path(self.root, 'CLASS', self.kind.example)} and the like"
            )
        return folders

    def schema(self) -> Mapping[str, bool]:
        """The kind's column and `id`, and `label` if there are classes."""
        return _schema(self.kind, self.classes)

    def records(self, columns: Sequence[str]) -> Generator[Record]:
        """A record a file; a class without one is a record with a problem."""
        seen = self._seen()
        for folder in self._folders:
            empty = True
            for path in self._files(folder, seen):
                empty = False
                yield self._record(path)
            if empty:
                problem = f"the class holds no {self.kind.noun}; expected {self.kind.expected}"
                yield Record(str(folder), 0, {"id": folder.name}, problem)

    def _record(self, path: Path) -> Record:
        identity = path.relative_to(self.root).as_posix()
        about = {"id": identity, "label": identity.partition("/")[0]} if self.classes else {"id": identity}
        try:
            return Record(str(path), 0, {self.kind.column: self.kind.value(path), **about})
        except DataError as error:
            return Record(str(path), 0, about, str(error).removeprefix(f"{path}: "))

    @property
    def why_unlabelled(self) -> str | None:
        """Files that lie in no folder of a class have no labels."""
        return None if self.classes else self.kind.no_classes

    @cached_property
    def doubt(self) -> str | None:
        """Why its folders may not be the classes: they look like the splits of a dataset. None if they do not."""
        first = f"give one alone, such as {Path(self.root, *self.classes[:1])}"
        rest = "if they are classes, say so with --label-column label"
        if len(splits := _splits(self.classes)) > 1:
            return f"the folders {', '.join(splits)} are splits by their names, expected classes; {first}; {rest}"
        if shared := self._shared_folders():
            folders, names = ", ".join(shared[0]), ", ".join(shared[1])
            return (
                f"the folders {folders} hold folders of the same names ({names}), so these are probably the classes; "
                f"{first}; {rest}"
            )
        return None

    def _shared_folders(self) -> tuple[list[str], list[str]] | None:
        """Folders without files of their own that have several folders of the same names in them, and those names."""
        inner: dict[str, set[str]] = {}
        for name in self.classes:
            with reading(str(Path(self.root, name))):
                entries = [entry for entry in os.scandir(Path(self.root, name)) if not _is_own(entry.name)]
            if not any(self.kind.takes(entry.name) and entry.is_file() for entry in entries):
                inner[name] = {entry.name for entry in entries if entry.is_dir()}
        counts = Counter(name for names in inner.values() for name in names)
        shared = sorted(name for name, count in counts.items() if count > 1)
        return (sorted(name for name in inner if inner[name] & set(shared)), shared) if len(shared) > 1 else None

    def _seen(self) -> "FoldersRead":
        """The folders read at the start of a pass: none, or the root if it holds folders of classes."""
        seen = FoldersRead()
        if self.classes:
            seen.add(Path(self.root))
        return seen

    @property
    def _folders(self) -> list[Path]:
        return [Path(self.root, name) for name in self.classes] or [Path(self.root)]

    def _files(self, folder: Path, seen: "FoldersRead") -> Iterator[Path]:
        return (path for path in files_below(folder, seen, self._passes_over) if self.kind.takes(path.name))

    def _passes_over(self, name: str) -> bool:
        """Whether a folder is no part of the corpus; said once of each name that is not simply hidden."""
        if _is_own(name) and not name.startswith(".") and name not in self._passed:
            self._passed.add(name)
            say(
                f"{self.root}: passing over folders of the name {name}, which looks like a system's own; if it is a "
                "class, give it a name that begins with a letter"
            )
        return _is_own(name)


def _schema(kind: FileKind, classes: Sequence[str]) -> Mapping[str, bool]:
    columns = {kind.column: True, "id": True}
    return {**columns, "label": True} if classes else columns


@dataclass(frozen=True)
class ClassFolders:
    """Several such folders of one kind as one corpus; a file's id is its path, its folder's included."""

    parts: tuple[ClassFolder, ...]

    @property
    def name(self) -> str:
        """The folders."""
        return ", ".join(part.name for part in self.parts)

    @property
    def total(self) -> int | None:
        """Files in all."""
        return sum(part.total or 0 for part in self.parts)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes of all folders; none if one of the folders has none."""
        found = [part.classes for part in self.parts]
        return tuple(sorted({name for names in found for name in names})) if all(found) else ()

    @property
    def why_unlabelled(self) -> str | None:
        """Files that lie in no folder of a class have no labels."""
        return None if self.classes else self.parts[0].kind.no_classes

    @property
    def doubt(self) -> str | None:
        """As of one folder, of the first in doubt."""
        doubts = (f"{part.name}: {part.doubt}" for part in self.parts if part.doubt)
        return next(doubts, None)

    def schema(self) -> Mapping[str, bool]:
        """As of one folder, with `label` if every folder has classes."""
        return _schema(self.parts[0].kind, self.classes)

    def records(self, columns: Sequence[str]) -> Generator[Record]:
        """The records of one folder after the other."""
        for part in self.parts:
            for record in part.records(columns):
                identity = Path(part.root, record.values["id"]).as_posix()
                yield record._replace(values={**record.values, "id": identity})


class FoldersRead:
    """The real folders that were read. A folder that is reached again through a link would give its files twice, and
    under the labels of two classes."""

    def __init__(self) -> None:
        self._paths: dict[tuple[int, int], Path] = {}

    def add(self, folder: Path) -> None:
        """Note a folder. Raises DataError for one that was noted."""
        with reading(str(folder)):
            about = folder.stat()
        first = self._paths.setdefault((about.st_dev, about.st_ino), folder)
        if first is not folder:
            raise DataError(f"{folder}: is the folder {first} again, through a link; remove the link")


def _is_own(name: str) -> bool:
    return name.startswith((".", *SYSTEMS_OWN))


def files_below(
    folder: Path, seen: FoldersRead | None = None, passed: Callable[[str], bool] = _is_own
) -> Iterator[Path]:
    """The files of a folder and of those below it that are not hidden, in sorted order. Raises DataError for a folder
    that cannot be read, or is reached twice."""
    seen = seen or FoldersRead()
    for parent, folders, files in os.walk(folder, followlinks=True, onerror=_refuse):
        seen.add(Path(parent))
        folders[:] = sorted(name for name in folders if not passed(name))
        yield from (Path(parent, name) for name in sorted(files) if not name.startswith("."))


def _refuse(error: OSError) -> None:
    # By default `os.walk` passes over folders that it cannot read.
    raise DataError(f"{error.filename}: cannot be read ({error.strerror}); change its permissions or remove it")


def _splits(folders: Sequence[str]) -> list[str]:
    """The folders that are named like splits, by the keywords of `datasets`; digits in a name (`val2017`) are ignored.
    None of them if all are of one split."""
    from datasets.data_files import SPLIT_KEYWORDS

    split_of = {word: str(split) for split, words in SPLIT_KEYWORDS.items() for word in words}
    found = {
        name: split_of[word] for name in folders for word in re.findall("[a-z]+", name.lower()) if word in split_of
    }
    return list(found) if len(set(found.values())) > 1 else []
