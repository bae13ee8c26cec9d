"""Records that are an image: the bytes of its file as they are, undecoded."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from recycle_cli.corpus.columns import IMAGES, Columns, listing, only, resolve_common
from recycle_cli.corpus.records import BadRecord, Reader, Record, kind_of, shown
from recycle_cli.corpus.sources import find_images
from recycle_cli.errors import DataError
from recycle_cli.keys import Sample


class ImageForm:
    """An image: the field `image`, which the key covers, holds the file's bytes."""

    modality = "image"

    def reader(self, sources: Sequence[str]) -> Reader:
        """The reader of image files, of folders of them, or of files of records."""
        return find_images(sources)

    def resolve(self, named: Columns, schema: Mapping[str, bool], corpus: str, *, labelled: bool) -> Columns:
        """Label and id as for texts; the image, if not named, is the only column of IMAGES that is there."""
        if named.text is not None or named.text_pair is not None:
            raise DataError(
                f"{corpus}: the model takes images, so that --text-column has no meaning; use --image-column"
            )
        resolved, free = resolve_common(named, schema, corpus, labelled=labelled)
        image = named.image or only(IMAGES, free)
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
        if isinstance(value, str) and value:
            value = _read(Path(record.file).parent / Path(value).expanduser(), record)
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
        return shown(value) if isinstance(value, str) and value else None


IMAGE = ImageForm()


def _read(path: Path, record: Record) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        named = "the image" if str(path) == record.file else f"the image {shown(str(path))}"
        raise BadRecord(f"{named} cannot be read ({reason})") from None
