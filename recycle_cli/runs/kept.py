"""Columns of the records that are written beside their predictions: their names, and how a value is written."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from recycle_cli.corpus.records import kind_of, shown
from recycle_cli.errors import DataError, UsageError

_EXACT = 2**53
"""Whole numbers up to this one are the same as float."""

CLASHING = "given_"
"""Prefix of a kept column whose name is taken by a column of the predictions."""


def names_beside(kept: Sequence[str], columns: Iterable[str]) -> dict[str, str]:
    """The name in the predictions of each kept column. Raises UsageError if that name is taken."""
    own = set(columns)
    names = {column: f"{CLASHING}{column}" if column in own else column for column in kept}
    for column, name in names.items():
        if name in own or list(names.values()).count(name) > 1:
            raise UsageError(f"--keep-columns: {column!r} would be written as {name!r}, which is taken; rename it")
    return names


def as_json(value: Any, column: str) -> Any:
    """A value as JSON has it: dates and decimals as text, NaN and infinity as null. Raises DataError for bytes."""
    if isinstance(value, str):
        return shown(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, Mapping):
        return {shown(str(name)): as_json(one, column) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(one, column) for one in value]
    if isinstance(value, bytes):
        raise DataError(f"the column {column!r} holds {kind_of(value)}, which cannot be kept; name others")
    return str(value)


def as_text(value: Any) -> str | None:
    """A JSON value as a cell of text: a text as it is, null as None, everything else as JSON."""
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


class Kinds:
    """Finds the type that fits all values of a column, None aside."""

    def __init__(self) -> None:
        self._seen: set[type] = set()
        self._least = self._most = 0

    def add(self, values: Iterable[Any]) -> None:
        """Take further values into account, as `as_json` gives them."""
        for value in values:
            if value is not None:
                self._seen.add(type(value))
            if type(value) is int:
                self._least, self._most = min(self._least, value), max(self._most, value)

    @property
    def fitting(self) -> type:
        """bool, int (if 64 bits hold them all) or float, if that changes no value; else str."""
        if self._seen == {bool}:
            return bool
        if self._seen == {int} and self._least >= -(2**63) and self._most < 2**63:
            return int
        if float in self._seen <= {int, float} and max(-self._least, self._most) <= _EXACT:
            return float
        return str
