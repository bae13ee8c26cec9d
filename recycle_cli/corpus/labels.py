"""How a record's label is read: one name, or the names of several classes."""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from recycle_cli.corpus.records import BadRecord, kind_of, shown, sound
from recycle_cli.settings import LABEL_SEPARATOR

NO_FLAGS = (
    ": this looks like a vector of flags or scores; expected the names of the record's classes, each once, such as "
    '["art", "news"] in place of [1, 0, 1]'
)

ReadLabel = Callable[[Mapping[str, Any], str], Any]
"""A record's values and a column that holds a label to the label. Raises BadRecord for a value that is none."""


def has_label(values: Mapping[str, Any], column: str) -> bool:
    """Whether the record holds anything in this column: text beyond white space, a number, a list."""
    value = values.get(column)
    if isinstance(value, str):
        return bool(value.strip())
    return not (value is None or (isinstance(value, float) and math.isnan(value)))


def one_label(values: Mapping[str, Any], column: str) -> str:
    """A label as text: names as they are, 3 and 3.0 as "3", True as "True". Raises BadRecord if there is none."""
    if not has_label(values, column):
        raise BadRecord(f"no label in column {column!r}")
    return _name(values[column], column)


def several_labels(values: Mapping[str, Any], column: str) -> tuple[str, ...]:
    """The names of any number of classes, from a list or from a text with separators between the names.

    White space around a name is not part of it; empty names are left out. Raises BadRecord if the column is empty, and
    for a name that is there twice, as in a vector of flags.
    """
    if not has_label(values, column):
        raise BadRecord(
            f"no label in column {column!r}; a record that has none of the classes is written [] as a list, "
            f"{LABEL_SEPARATOR} as text"
        )
    value = values[column]
    names = _separated(value, column) if isinstance(value, str) else _listed(value, column)
    found = tuple(name.strip() for name in names if name.strip())
    if twice := [name for name, times in Counter(found).items() if times > 1]:
        raise BadRecord(f"column {column!r} holds {shown(twice[0])!r} more than once{NO_FLAGS}")
    return found


def _separated(value: str, column: str) -> list[str]:
    if value.strip().startswith("[") and value.strip().endswith("]"):
        raise BadRecord(
            f"column {column!r} holds {sound(value, column)!r}, a list written as text; write the names with "
            f"{LABEL_SEPARATOR} between them ({LABEL_SEPARATOR} alone for none), or give JSON lines or Parquet"
        )
    return sound(value, column).split(LABEL_SEPARATOR)


def _listed(value: Any, column: str) -> list[str]:
    members = value if isinstance(value, list) else [value]
    if isinstance(value, list) and (flags := [one for one in value if _is_flag(one)]):
        raise BadRecord(f"column {column!r} holds {kind_of(flags[0])} ({flags[0]}) in a list{NO_FLAGS}")
    names = [_name(one, column) for one in members]
    if mixed := [name for name in names if LABEL_SEPARATOR in name]:
        raise BadRecord(
            f"column {column!r} holds the name {mixed[0]!r} in a list; {LABEL_SEPARATOR} stands between names "
            "where they are text, so write it without"
        )
    return names


def _is_flag(value: Any) -> bool:
    """Whether a member of a list can only belong to a vector of flags or scores: a truth value, or a fraction."""
    return isinstance(value, bool) or (isinstance(value, float) and not value.is_integer())


def _name(value: Any, column: str) -> str:
    if isinstance(value, list):
        raise BadRecord(f"column {column!r} holds several labels, expected one; add --multi-label to learn them")
    if isinstance(value, str):
        return sound(value, column)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, bool | int | float):
        return str(value)
    raise BadRecord(f"column {column!r} holds {kind_of(value)}, expected a label (a text or a number)")
