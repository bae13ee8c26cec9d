"""Values of a record to the fields of an image sample: the bytes of the file, as they are."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recycle_cli.corpus.records import BadRecord, Record, shown


def image_fields(record: Record, column: str) -> dict[str, str | bytes]:
    """The field `image`, which the key covers: the file's bytes, undecoded.

    A column holds the bytes themselves, the path of a file (relative to the corpus file's folder), or both in the form
    that `datasets` writes, `{"bytes": ..., "path": ...}`. Raises BadRecord.
    """
    value = record.values.get(column)
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str) and value:
        value = _read(Path(record.file).parent / Path(value).expanduser(), record)
    if value is None or value == "":
        raise BadRecord(f"no image in column {column!r}")
    if not isinstance(value, bytes):
        raise BadRecord(f"column {column!r} holds {_kind(value)}, expected an image's bytes or the path of its file")
    if not value:
        raise BadRecord("the file is empty, expected an image")
    return {"image": value}


def path_of(record: Record, column: str) -> str | None:
    """The path of an image's file as its record has it, if it has one."""
    value = record.values.get(column)
    return shown(value) if isinstance(value, str) and value else None


def _read(path: Path, record: Record) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        named = "the image" if str(path) == record.file else f"the image {shown(str(path))}"
        raise BadRecord(f"{named} cannot be read ({reason})") from None


def _kind(value: Any) -> str:
    name = type(value).__name__
    return {"int": "an integer", "float": "a number", "bool": "a truth value"}.get(name, f"a {name}")
