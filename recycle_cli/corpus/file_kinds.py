"""The kinds of files that are a record each: images and texts."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from recycle_cli.corpus.boundary import reading
from recycle_cli.corpus.compressed import open_text
from recycle_cli.corpus.folders import FileKind, files_below
from recycle_cli.corpus.records import Record
from recycle_cli.pointers import check_fetched
from recycle_cli.settings import Shard

IMAGE_ENDINGS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"),
    *(".avif", ".heic", ".heif", ".jp2"),
)
"""The endings of image files; other files in a folder of images are ignored. The format of a file is found when it is
decoded, whatever its ending."""


def is_image(name: str) -> bool:
    """Whether a file's name ends as an image's does."""
    return not name.startswith(".") and name.lower().endswith(IMAGE_ENDINGS)


def holds_images(folder: str) -> bool:
    """Whether there is an image anywhere below."""
    return any(is_image(file.name) for file in files_below(Path(folder)))


def text_in_file(file: str | Path) -> str:
    """The text of a file without the line ends behind it. Raises DataError if it cannot be read."""
    path = str(file)
    check_fetched(path)
    with reading(path), open_text(path) as content:
        return content.read().rstrip("\r\n")


IMAGE_KIND = FileKind(
    "image",
    "image",
    "image.jpg",
    f"files of {', '.join(IMAGE_ENDINGS[:4])} and the like",
    is_image,
    lambda path: path.name,
)

TEXT_KIND = FileKind("text", "text", "one.txt", "files of text", lambda name: not name.startswith("."), text_in_file)
"""Every file is a text, whatever its name ends in."""


@dataclass(frozen=True)
class ImageFiles:
    """Image files by name, without labels; a file's id is its path."""

    name: str
    files: tuple[str, ...]
    doubt = None

    @property
    def why_unlabelled(self) -> str | None:
        """Files by name have no labels."""
        return IMAGE_KIND.no_classes

    @property
    def total(self) -> int | None:
        """Images in all."""
        return len(self.files)

    def schema(self) -> Mapping[str, bool]:
        """`image` and `id`."""
        return {"image": True, "id": True}

    def records(self, columns: Sequence[str]) -> Generator[Record]:
        """A record a file."""
        yield from map(_image_record, self.files)

    def shard(self, shard: Shard, columns: Sequence[str]) -> Generator[Record]:
        """A record for each of the shard's files."""
        wanted = shard.places(len(self.files))
        yield from map(_image_record, self.files[wanted.start : wanted.stop])


def _image_record(file: str) -> Record:
    return Record(file, 0, {"image": Path(file).name, "id": Path(file).as_posix()})
