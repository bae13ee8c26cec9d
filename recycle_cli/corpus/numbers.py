"""Labels that are numbers: one in a column, several as a list, or one in each of several columns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import numpy as np

from recycle_cli.corpus.columns import Columns, listing
from recycle_cli.corpus.forms import Form
from recycle_cli.corpus.labels import has_label
from recycle_cli.corpus.records import BadRecord, Reader, Record, kind_of, shown
from recycle_cli.errors import DataError
from recycle_cli.keys import Sample
from recycle_cli.settings import FileSettings

LARGEST_NUMBER = float(np.finfo(np.float32).max)


def read_numbers(values: Mapping[str, Any], column: str) -> tuple[float, ...]:
    """The number in a column, or the numbers of its list. Raises BadRecord for anything else, NaN and infinity too."""
    value = values.get(column)
    if isinstance(value, list):
        if not value:
            raise BadRecord(f"column {column!r} holds an empty list, expected a number or several")
        return tuple(_number(one, column) for one in value)
    # NaN in a table of numbers is a number that went wrong, and not a label that is missing.
    if not has_label(values, column) and not isinstance(value, float):
        raise BadRecord(f"no number in column {column!r}")
    return (_number(value, column),)


def _number(value: Any, column: str) -> float:
    if isinstance(value, str):
        value = _parsed(value, column)
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise BadRecord(f"column {column!r} holds {kind_of(value)}, expected a number")
    size: Any = abs(value)
    if not size <= LARGEST_NUMBER:
        said = f"{value:.7g}" if isinstance(value, float) else "a number of too many digits"
        raise BadRecord(f"column {column!r} holds {said}, expected a finite number")
    return float(value)


def _parsed(text: str, column: str) -> float:
    """The number that a text holds. Underscores between digits, which Python allows, are refused."""
    try:
        if "_" in text:
            raise ValueError
        return float(text)
    except ValueError:
        brief = text if len(text) <= 40 else f"{text[:40]}..."
        raise BadRecord(
            f"column {column!r} holds the text {shown(brief)!r}, expected a number such as 3.5; names of classes are "
            "learnt with a task of classification"
        ) from None


@dataclass(frozen=True)
class NumbersForm:
    """Records of another form with a number to learn in each of several columns; the first is the label column."""

    plain: Form
    target_columns: tuple[str, ...]

    @property
    def modality(self) -> str:
        """That of the plain form."""
        return self.plain.modality

    def reader(self, sources: Sequence[str], files: FileSettings) -> Reader:
        """That of the plain form."""
        return self.plain.reader(sources, files)

    def resolve(self, named: Columns, schema: Mapping[str, bool], corpus: str, *, labelled: bool) -> Columns:
        """As the plain form, with all of the target columns; with none if one is missing and labels are not needed."""
        if named.labels or named.label not in (None, self.target_columns[0]):
            raise DataError(
                f"{corpus}: --label-column {named.label or named.labels[0]}: --target-columns names the labels; give "
                "one of the two"
            )
        absent = [name for name in self.target_columns if name not in schema]
        if absent and labelled:
            raise DataError(f"{corpus}: no column {absent[0]!r} (--target-columns); {listing(schema)}")
        if absent:
            free = {name: text for name, text in schema.items() if name not in self.target_columns}
            return replace(self.plain.resolve(named, free, corpus, labelled=False), label=None)
        found = self.plain.resolve(replace(named, label=self.target_columns[0]), schema, corpus, labelled=False)
        return replace(found, others={**found.others, **{name: name for name in self.target_columns}})

    def samples(self, record: Record, columns: Columns, identity: str) -> tuple[Sample, ...]:
        """Those of the plain form."""
        return self.plain.samples(record, columns, identity)

    def name(self, record: Record, columns: Columns) -> str | None:
        """That of the plain form."""
        return self.plain.name(record, columns)

    def read(self, values: Mapping[str, Any], column: str) -> tuple[float, ...]:
        """The numbers in all of the columns. Raises BadRecord if one has none."""
        return tuple(number for name in self.target_columns for number in self._one(values, name))

    def _one(self, values: Mapping[str, Any], column: str) -> tuple[float, ...]:
        found = read_numbers(values, column)
        if len(found) != 1:
            raise BadRecord(f"column {column!r} holds {len(found)} numbers, expected one in each of --target-columns")
        return found
