"""Image files as they lie on the disk: trees of one folder a class, folders without classes, files by name."""

import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

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

    Raises DataError where there is no image, or images stand beside the classes' folders.
    """

    root: str

    @property
    def name(self) -> str:
        """The folder."""
        return self.root

    @property
    def total(self) -> int | None:
        """Images in all."""
        return sum(1 for folder in self._folders for _ in _images(folder))

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
        for folder in self._folders:
            empty = True
            for path in _images(folder):
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

    def schema(self) -> Mapping[str, bool]:
        """As of one folder."""
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


def _images(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if is_image(name):
                yield Path(parent, name)


def holds_images(folder: str) -> bool:
    """Whether there is an image anywhere below."""
    return next(_images(Path(folder)), None) is not None


def is_image(name: str) -> bool:
    """Whether a file's name ends as an image's does."""
    return not name.startswith(".") and name.lower().endswith(ENDINGS)
