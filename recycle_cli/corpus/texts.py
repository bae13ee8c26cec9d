"""Values of a record to the fields of a text sample, and to its label and id."""

import math
from collections.abc import Mapping
from typing import Any

from recycle_cli.corpus.columns import Columns
from recycle_cli.corpus.records import BadRecord
from recycle_cli.keys import Label
from recycle_cli.settings import LABEL_SEPARATOR


def text_fields(values: Mapping[str, Any], columns: Columns) -> dict[str, str | bytes]:
    """The fields that the key covers: `text`, and `text_pair` where there is one. Raises BadRecord."""
    assert columns.text is not None
    fields: dict[str, str | bytes] = {"text": _text(values, columns.text)}
    if columns.text_pair is not None:
        fields["text_pair"] = _text(values, columns.text_pair)
    return fields


def has_label(values: Mapping[str, Any], column: str) -> bool:
    """Whether the record holds anything there."""
    value = values.get(column)
    return not (value is None or value == "" or (isinstance(value, float) and math.isnan(value)))


def label_of(values: Mapping[str, Any], column: str, *, several: bool = False) -> Label:
    """A label as text: names as they are, 3 and 3.0 as "3", True as "True". Raises BadRecord where there is none.

    `several`: the names of any number of classes, from a list, or from a text that has separators between them.
    """
    value = values.get(column)
    if not has_label(values, column) or (several and str(value).isspace()):
        none = f"; none of the classes is written [] or {LABEL_SEPARATOR}" if several else ""
        raise BadRecord(f"no label in column {column!r}{none}")
    if not several:
        return _name(value, column)
    if isinstance(value, str):
        return tuple(name.strip() for name in _sound(value, column).split(LABEL_SEPARATOR) if name.strip())
    return tuple(_name(one, column) for one in (value if isinstance(value, list) else [value]))


def _name(value: Any, column: str) -> str:
    if isinstance(value, list):
        raise BadRecord(f"column {column!r} holds several labels, expected one; add --multi-label to learn them")
    if isinstance(value, str):
        return _sound(value, column)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, bool | int | float):
        return str(value)
    raise BadRecord(f"column {column!r} holds {_kind(value)}, expected a label (a text or a number)")


def id_of(values: Mapping[str, Any], column: str | None) -> str | None:
    """The record's own id as text; None where it has none. Raises BadRecord where it cannot be written down."""
    value = values.get(column) if column is not None else None
    return None if value is None or value == "" else _sound(str(value), str(column))


def _text(values: Mapping[str, Any], column: str) -> str:
    value = values.get(column)
    if value is None:
        raise BadRecord(f"no text in column {column!r}")
    if not isinstance(value, str):
        raise BadRecord(f"column {column!r} holds {_kind(value)}, expected a text")
    if not value or value.isspace():
        raise BadRecord(f"the text in column {column!r} is empty")
    return _sound(value, column)


def _sound(value: str, column: str) -> str:
    # Readers keep bytes that are no UTF-8 as lone surrogates, so that one bad record does not take its file with it.
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadRecord(f"column {column!r} is not UTF-8 at character {error.start + 1}") from None
    return value


def _kind(value: object) -> str:
    name = type(value).__name__
    return {"dict": "an object", "int": "an integer", "float": "a number", "bool": "a truth value"}.get(
        name, f"a {name}"
    )
