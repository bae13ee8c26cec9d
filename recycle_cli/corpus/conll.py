"""CoNLL files: a word a line with its columns, blank lines between sentences."""

import re
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from recycle_cli.corpus.records import Record, shown
from recycle_cli.errors import DataError

DOCUMENT_START = "-DOCSTART-"
"""The first word of a line that begins a document; such lines are no words."""

GLOBAL_COLUMNS = "# global.columns ="
"""The beginning of the comment by which CoNLL-U Plus names the columns."""

_RANGE = re.compile(r"\d+[-.]\d+")
"""The first column of a CoNLL-U line for a multiword token (1-2) or an empty node (1.1), which are no words."""


def conll(lines: Iterator[str], file: str, columns: Sequence[str]) -> Generator[Record]:
    """One record a sentence, whose number is that of its first line, with a list for each column.

    The columns are called by their numbers from 1, and by their names as well if the file gives them. They are
    separated by tabs if the first word's line has one, else by white space. Lines of -DOCSTART- and comments are passed
    over. A line with another number of columns than the first word's is a record that cannot be read.
    """
    return _sentences(lines, file)


def conllu(lines: Iterator[str], file: str, columns: Sequence[str]) -> Generator[Record]:
    """As `conll`, without the lines of multiword tokens and of empty nodes."""
    return _sentences(lines, file, lambda cells: _RANGE.fullmatch(cells[0]) is not None)


def _sentences(
    lines: Iterator[str], file: str, passed_over: Callable[[list[str]], bool] = lambda cells: False
) -> Generator[Record]:
    head, numbered = _until_words(enumerate(lines, start=1))
    if not head:
        return
    layout = _layout(head)
    if len(set(layout.names)) < len(layout.names):
        raise DataError(f"{file}: names a column twice ({', '.join(layout.names)})")
    sentence = _Sentence(file, layout)
    for number, line in chain(head, numbered):
        cells = layout.cells(line)
        if not cells or line.startswith(DOCUMENT_START):
            yield from sentence.ended()
        elif layout.is_comment(line, cells):
            continue
        elif not passed_over(cells):
            sentence.add(number, cells)
    yield from sentence.ended()


def _until_words(numbered: Iterator[tuple[int, str]]) -> tuple[list[tuple[int, str]], Iterator[tuple[int, str]]]:
    """Divide the lines behind the first that surely holds a word. Without such a line, the first part is empty."""
    head: list[tuple[int, str]] = []
    for number, line in numbered:
        head.append((number, line.removeprefix("\ufeff") if number == 1 else line))
        if line.strip() and not head[-1][1].startswith(("#", DOCUMENT_START)):
            return head, numbered
    return [], numbered


@dataclass(frozen=True)
class _Layout:
    """How the lines of a file are divided into columns. `names`: the names of the columns, if the file gives any."""

    tabs: bool
    width: int
    names: tuple[str, ...] = ()

    def cells(self, line: str) -> list[str]:
        """The columns of a line; none for a blank one."""
        if not line.strip():
            return []
        return line.rstrip("\r\n").split("\t") if self.tabs else line.split()

    def is_comment(self, line: str, cells: list[str]) -> bool:
        """Whether a line that begins with # is a comment: it has another number of columns, or is `# name = value`."""
        return line.startswith("#") and (
            len(cells) != self.width or (not self.tabs and cells[:1] + cells[2:3] == ["#", "="])
        )


def _layout(head: Sequence[tuple[int, str]]) -> _Layout:
    first = head[-1][1]
    tabs = "\t" in first
    named = [line.removeprefix(GLOBAL_COLUMNS).split() for _, line in head if line.startswith(GLOBAL_COLUMNS)]
    width = len(_Layout(tabs, 0).cells(first))
    names = tuple(named[-1]) if named and len(named[-1]) == width else ()
    return _Layout(tabs, width, names)


@dataclass
class _Sentence:
    """The words of a sentence as they come."""

    file: str
    layout: _Layout
    first: int = 0
    words: list[list[str]] = field(default_factory=list)
    problem: tuple[int, str] | None = None

    def add(self, number: int, cells: list[str]) -> None:
        """Add the next word. The first line that cannot be read is kept as the problem of the sentence."""
        self.first = self.first or number
        self.words.append(cells)
        if len(cells) != self.layout.width and self.problem is None:
            self.problem = (
                number,
                f"{len(cells)} columns ({shown(' '.join(cells)[:60])!r}), expected {self.layout.width} as in the first "
                "word's line",
            )

    def ended(self) -> Iterator[Record]:
        """The sentence as a record, if it has words. Begins the next sentence."""
        if self.words:
            number, problem = self.problem or (self.first, None)
            yield Record(self.file, number, {} if problem else self._values(), problem, unit="line")
        self.first, self.words, self.problem = 0, [], None

    def _values(self) -> dict[str, Any]:
        columns: Iterable[list[str]] = map(list, zip(*self.words, strict=True))
        numbered = {str(place): values for place, values in enumerate(columns, start=1)}
        return numbered | dict(zip(self.layout.names, numbered.values(), strict=False))
