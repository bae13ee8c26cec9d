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
    """Whether the record holds anything there: text beyond white space, a number, a list."""
    value = values.get(column)
    if isinstance(value, str):
        return bool(value.strip())
    return not (value is None or (isinstance(value, float) and math.isnan(value)))


def label_of(values: Mapping[str, Any], column: str, *, multi_label: bool = False) -> Label:
    """A label as text: names as they are, 3 and 3.0 as "3", True as "True". Raises BadRecord where there is none.

    `multi_label`: the names of any number of classes, from a list, or from a text that has separators between them;
    white space around a name is no part of it, and names of nothing else are left out.
    """
    if not has_label(values, column):
        none = f"; none of the classes is written [] in a list column, {LABEL_SEPARATOR} in text" if multi_label else ""
        raise BadRecord(f"no label in column {column!r}{none}")
    value = values[column]
    return _names(value, column) if multi_label else _name(value, column)


def _names(value: Any, column: str) -> tuple[str, ...]:
    if isinstance(value, str):
        if value.strip().startswith("[") and value.strip().endswith("]"):
            raise BadRecord(
                f"column {column!r} holds {_sound(value, column)!r}, a list written as text; write the names with "
                f"{LABEL_SEPARATOR} between them ({LABEL_SEPARATOR} alone for none), or give JSON lines or Parquet"
            )
        names = _sound(value, column).split(LABEL_SEPARATOR)
    else:
        names = [_name(one, column) for one in (value if isinstance(value, list) else [value])]
        if mixed := [name for name in names if LABEL_SEPARATOR in name]:
            raise BadRecord(
                f"column {column!r} holds the name {mixed[0]!r} in a list; {LABEL_SEPARATOR} stands between names "
                "where they are text, so write it without"
            )
    return tuple(name.strip() for name in names if name.strip())


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
