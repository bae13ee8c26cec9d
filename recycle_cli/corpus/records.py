"""The contract of readers: which columns there are, and the records, one after another."""

from collections.abc import Generator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol


class Record(NamedTuple):
    """One record as its file holds it.

    number   counts from 1 in `file`; 0 for a file that is one record
    problem  why `values` cannot be read; None if they can
    blank    it holds nothing and gives no sample, but has a number
    unit     the thing that `number` counts
    """

    file: str
    number: int
    values: Mapping[str, Any]
    problem: str | None = None
    blank: bool = False
    unit: str = "record"

    @property
    def place(self) -> str:
        """The file and the record's number in it; a file that is a record of its own has no number."""
        return f"{self.file}, {self.unit} {self.number}" if self.number else self.file


class Reader(Protocol):
    """A streaming source of records; `records` starts from the beginning each time."""

    @property
    def name(self) -> str:
        """The name of the corpus in messages."""

    @property
    def total(self) -> int | None:
        """Records in all; None if the files do not tell without being read."""

    @property
    def why_unlabelled(self) -> str | None:
        """Why the records cannot have labels; None if they may have some."""

    @property
    def doubt(self) -> str | None:
        """Why the labels may be something else, and the remedy; None if there is no doubt."""

    def schema(self) -> Mapping[str, bool]:
        """The columns, each with whether it holds text. Empty if there is no record to judge by."""

    def records(self, columns: Sequence[str]) -> Generator[Record]:
        """The records, with at least the named columns, if a record has them."""


def shown(text: str) -> str:
    """Text from a file made safe to print: a lone surrogate, which is no UTF-8, becomes `\\udcff`."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


class BadRecord(Exception):  # noqa: N818 - it never leaves the package; the corpus turns it into a Failure or a DataError
    """A record that cannot become a sample; the message is the reason."""


class BadLabel(BadRecord):
    """A label that does not fit its record; without it the record can be used."""


def sound(value: str, column: str) -> str:
    """The value unchanged. Raises BadRecord if it cannot be encoded as UTF-8."""
    # Readers keep bytes that are no UTF-8 as lone surrogates, so that one bad record does not take its file with it.
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadRecord(f"column {column!r} is not UTF-8 at character {error.start + 1}") from None
    return value


def kind_of(value: object) -> str:
    """The name of a value's type in a message."""
    name = type(value).__name__
    return {"dict": "an object", "int": "an integer", "float": "a number", "bool": "a truth value"}.get(
        name, f"a {name}"
    )
