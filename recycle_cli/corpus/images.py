"""Records that are an image: the bytes of its file as they are, undecoded."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeGuard

from recycle_cli.corpus.boundary import brief, reading
from recycle_cli.corpus.columns import IMAGE_COLUMNS, Columns, listing, only, resolve_common
from recycle_cli.corpus.records import BadRecord, Reader, Record, kind_of, shown
from recycle_cli.corpus.sources import find_images
from recycle_cli.disk import expanded, read_bytes
from recycle_cli.errors import DataError
from recycle_cli.keys import Sample
from recycle_cli.pointers import what_pointer
from recycle_cli.settings import FileSettings

LARGEST_FILE = 1 << 30
"""Most bytes of an image's file: no image that can be decoded has more."""

LONGEST_PATH = 4096
"""Most characters of a path on Linux; a longer text is no path."""


class ImageForm:
    """An image: the field `image`, which the key covers, holds the file's bytes."""

    modality = "image"

    def reader(self, sources: Sequence[str], files: FileSettings) -> Reader:
        """The reader of image files, of folders of them, or of files of records."""
        return find_images(sources, files)

    def resolve(self, named: Columns, schema: Mapping[str, bool], corpus: str, *, labelled: bool) -> Columns:
        """Label and id as for texts; the image, if not named, is the only column of IMAGE_COLUMNS that is there."""
        if named.text is not None or named.text_pair is not None:
            raise DataError(
                f"{corpus}: the model takes images, so that --text-column has no meaning; use --image-column"
            )
        resolved, free = resolve_common(named, schema, corpus, labelled=labelled)
        image = named.image or only(IMAGE_COLUMNS, free)
        if image is None:
            raise DataError(f"{corpus}: which column is the image? Name it with --image-column; {listing(schema)}")
        return replace(resolved, image=image)

    def samples(self, record: Record, columns: Columns, identity: str) -> tuple[Sample, ...]:
        """One sample.

        The column holds the bytes themselves, the path of a file (relative to the corpus file's folder), or both in the
        form that `datasets` writes, `{"bytes": ..., "path": ...}`.
        """
        assert columns.image is not None
        value = record.values.get(columns.image)
        if isinstance(value, Mapping):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, str) and len(value) > LONGEST_PATH:
            raise BadRecord(
                f"column {columns.image!r} holds a text of {len(value):,} characters, expected the path of an image's "
                "file; if it is the image itself as base64, decode it into bytes"
            )
        if _is_path(value):
            value = _read(value, record)
        if value is None or value == "":
            raise BadRecord(f"no image in column {columns.image!r}")
        if not isinstance(value, bytes):
            raise BadRecord(
                f"column {columns.image!r} holds {kind_of(value)}, expected an image's bytes or the path of its file"
            )
        if not value:
            raise BadRecord("the file is empty, expected an image")
        return (Sample(identity, {"image": value}),)

    def name(self, record: Record, columns: Columns) -> str | None:
        """The path of the file as the record has it, if it has one."""
        value = record.values.get(columns.image) if columns.image else None
        return shown(value) if _is_path(value) else None


IMAGE = ImageForm()


def _is_path(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= LONGEST_PATH


def _read(value: str, record: Record) -> bytes:
    named = "the image" if Path(record.file).name == value else f"the image {shown(value)}"
    try:
        with reading(named):
            content = read_bytes(Path(record.file).parent / expanded(value), LARGEST_FILE)
    except DataError as error:
        raise BadRecord(f"{named} cannot be read ({brief(error)})") from error
    if (problem := what_pointer(content)) is not None:
        raise BadRecord(f"{named} {problem}")
    return content
