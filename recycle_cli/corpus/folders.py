"""Image files as they lie on the disk: trees of one folder a class, folders without classes, files by name."""

import os
import re
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from recycle_cli.corpus.boundary import reading
from recycle_cli.corpus.records import Record
from recycle_cli.errors import DataError

ENDINGS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"),
    *(".avif", ".heic", ".heif", ".jp2"),
)
"""Files of other endings are no part of the corpus. What a file holds, and whether it can be read, is found out when it
is decoded."""

NO_CLASSES = "images without folders of classes have no labels; expected FOLDER/CLASS/IMAGE"


@dataclass(frozen=True)
class ImageFolder:
    """`root/CLASS/.../image.jpg`, classes and files in sorted order; a file's id is its path below `root`.

    Raises DataError if there is no image, or if images lie beside the folders of the classes.
    """

    root: str

    @property
    def name(self) -> str:
        """The folder."""
        return self.root

    @property
    def total(self) -> int | None:
        """Images in all."""
        seen = self._seen()
        return sum(1 for folder in self._folders for _ in _images(folder, seen))

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Names of the folders in `root`; none if the images lie in `root` itself."""
        root = Path(self.root)
        try:
            entries = sorted(entry for entry in root.iterdir() if not entry.name.startswith("."))
        except OSError as error:
            raise DataError(f"{self.root}: cannot be read ({error.strerror})") from error
        folders = tuple(entry.name for entry in entries if entry.is_dir())
        bare = next((entry for entry in entries if is_image(entry.name) and entry.is_file()), None)
        if folders and bare:
            raise DataError(
                f"{self.root}: {bare.name} lies beside the folders of the classes; move it into one of them"
            )
        if not folders and not bare:
            raise DataError(
                f"{self.root}: holds no image; expected {Path(self.root, 'CLASS', 'image.jpg')} and the like"
            )
        return folders

    def schema(self) -> Mapping[str, bool]:
        """`image` and `id`, and `label` if there are classes."""
        columns = {"image": True, "id": True}
        return {**columns, "label": True} if self.classes else columns

    def records(self, columns: Sequence[str]) -> Generator[Record]:
        """A record an image; a class without one is a record with a problem."""
        seen = self._seen()
        for folder in self._folders:
            empty = True
            for path in _images(folder, seen):
                empty = False
                identity = path.relative_to(self.root).as_posix()
                yield Record(str(path), 0, {"image": path.name, "id": identity, "label": identity.partition("/")[0]})
            if empty:
                problem = f"the class holds no image; expected files of {', '.join(ENDINGS[:4])} and the like"
                yield Record(str(folder), 0, {"id": folder.name}, problem)

    @property
    def why_unlabelled(self) -> str | None:
        """Images that lie in no folder of a class have no labels."""
        return None if self.classes else NO_CLASSES

    @cached_property
    def doubt(self) -> str | None:
        """Why its folders may be no classes: they look like a dataset's splits."""
        first = f"give one alone, such as {Path(self.root, *self.classes[:1])}"
        rest = "if they are classes, say so with --label-column label"
        if len(splits := _splits(self.classes)) > 1:
            return f"the folders {', '.join(splits)} are splits by their names, expected classes; {first}; {rest}"
        if shared := _shared_folders(Path(self.root), self.classes):
            folders, names = ", ".join(shared[0]), ", ".join(shared[1])
            return (
                f"the folders {folders} hold folders of the same names ({names}), so that those are the classes as it "
                f"seems; {first}; {rest}"
            )
        return None

    def _seen(self) -> "_Seen":
        """No folder read yet; the root, if it is more than a folder of images, is never to be one of them."""
        seen = _Seen()
        if self.classes:
            seen.add(Path(self.root))
        return seen

    @property
    def _folders(self) -> list[Path]:
        return [Path(self.root, name) for name in self.classes] or [Path(self.root)]


@dataclass(frozen=True)
class ImageFolders:
    """Several such folders as one corpus; a file's id is its path, its folder's included."""

    parts: tuple[ImageFolder, ...]

    @property
    def name(self) -> str:
        """The folders."""
        return ", ".join(part.name for part in self.parts)

    @property
    def total(self) -> int | None:
        """Images in all."""
        return sum(part.total or 0 for part in self.parts)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes of all folders; none if one of the folders has none."""
        found = [part.classes for part in self.parts]
        return tuple(sorted({name for names in found for name in names})) if all(found) else ()

    @property
    def why_unlabelled(self) -> str | None:
        """Images that lie in no folder of a class have no labels."""
        return None if self.classes else NO_CLASSES

    @property
    def doubt(self) -> str | None:
        """As of one folder, of the first in doubt."""
        doubts = (f"{part.name}: {part.doubt}" for part in self.parts if part.doubt)
        return next(doubts, None)

    def schema(self) -> Mapping[str, bool]:
        """`image` and `id`, and `label` if every folder has classes."""
        columns = {"image": True, "id": True}
        return {**columns, "label": True} if self.classes else columns

    def records(self, columns: Sequence[str]) -> Generator[Record]:
        """The records of one folder after the other."""
        for part in self.parts:
            for record in part.records(columns):
                identity = Path(part.root, record.values["id"]).as_posix()
                yield record._replace(values={**record.values, "id": identity})


@dataclass(frozen=True)
class ImageFiles:
    """Image files by name, without labels; a file's id is its path."""

    name: str
    files: tuple[str, ...]
    doubt = None

    @property
    def why_unlabelled(self) -> str | None:
        """Files by name have no labels."""
        return NO_CLASSES

    @property
    def total(self) -> int | None:
        """Images in all."""
        return len(self.files)

    def schema(self) -> Mapping[str, bool]:
        """`image` and `id`."""
        return {"image": True, "id": True}

    def records(self, columns: Sequence[str]) -> Generator[Record]:
        """A record a file."""
        for file in self.files:
            yield Record(file, 0, {"image": Path(file).name, "id": Path(file).as_posix()})


class _Seen:
    """The real folders that were read: one that is reached again, through a link, would give its images twice, and
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


def _images(folder: Path, seen: _Seen) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder, followlinks=True, onerror=_refuse):
        seen.add(Path(parent))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if is_image(name):
                yield Path(parent, name)


def _refuse(error: OSError) -> None:
    # Of itself `os.walk` passes over folders that it cannot read.
    raise DataError(f"{error.filename}: cannot be read ({error.strerror}); change its permissions or remove it")


def _splits(folders: Sequence[str]) -> list[str]:
    """The folders whose names are those of splits, as `datasets` knows them; numbers in a name (`val2017`) aside."""
    from datasets.data_files import SPLIT_KEYWORDS

    split_of = {word: str(split) for split, words in SPLIT_KEYWORDS.items() for word in words}
    found = {
        name: split_of[word] for name in folders for word in re.findall("[a-z]+", name.lower()) if word in split_of
    }
    return list(found) if len(set(found.values())) > 1 else []


def _shared_folders(root: Path, folders: Sequence[str]) -> tuple[list[str], list[str]] | None:
    """Folders without images of their own that have several folders of the same names in them, and those names."""
    inner: dict[str, set[str]] = {}
    for name in folders:
        with reading(str(root / name)):
            entries = [entry for entry in os.scandir(root / name) if not entry.name.startswith(".")]
        if not any(is_image(entry.name) for entry in entries):
            inner[name] = {entry.name for entry in entries if entry.is_dir()}
    counts = Counter(name for names in inner.values() for name in names)
    shared = sorted(name for name, count in counts.items() if count > 1)
    return (sorted(name for name in inner if inner[name] & set(shared)), shared) if len(shared) > 1 else None


def holds_images(folder: str) -> bool:
    """Whether there is an image anywhere below."""
    return next(_images(Path(folder), _Seen()), None) is not None


def is_image(name: str) -> bool:
    """Whether a file's name ends as an image's does."""
    return not name.startswith(".") and name.lower().endswith(ENDINGS)
