"""Records of text files: CSV, TSV, JSON lines, plain lines.

Parsed by the standard library and not by the builders of `datasets`: those guess types (`007` to 7, `NA` to nothing),
translate line ends inside quoted cells, and give up a whole file for one bad record.
"""

import csv
import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from recycle_cli.corpus.boundary import reading
from recycle_cli.corpus.compressed import COMPRESSIONS, open_text
from recycle_cli.corpus.parts import Part, parts_of, whole_files
from recycle_cli.corpus.records import Record, shown
from recycle_cli.errors import DataError
from recycle_cli.settings import Shard

LONGEST_CELL = 1 << 24
"""Most characters of a cell; if it has more, a quotation mark was never closed."""

PEEKED = 100
"""First records that decide which columns there are, and which of them hold text."""

UNQUOTED = "if the file knows no quoting, add --quoting none"

FILES_A_SHARD = 8
"""With at least so many files a shard, files that are read from their start go to shards as a whole. With fewer, shards
would differ too much in size."""

Parse = Callable[[Iterator[str], str, Sequence[str]], Generator[Record]]
"""Lines, the file's name and the columns in use to records."""

OfLine = Callable[[str, int, str], Record]
"""A file's name, a line's number and the line to a record."""


@dataclass(frozen=True)
class LineKind:
    """A kind of text files.

    parse    makes records of the lines of a whole file
    of_line  makes a record of any one of its lines; None if a record may have several lines, or a line's meaning hangs
             on those before it
    """

    parse: Parse
    of_line: OfLine | None = None


@dataclass(frozen=True)
class LineFiles:
    """Text files of one kind, read one after another. `files`: the name of each in messages, and its path."""

    name: str
    files: Sequence[tuple[str, Path]]
    kind: LineKind
    total: int | None = None
    why_unlabelled = None
    doubt = None

    def schema(self) -> Mapping[str, bool]:
        """The columns of the first file's first records; those with nothing but text in them hold text."""
        with closing(self.records(())) as records:
            first = list(islice((record for record in records if not record.blank), PEEKED))
        if not first and not all(_is_blank(file, path) for file, path in self.files):
            raise DataError(f"{self.name}: holds the names of its columns alone, expected at least one record")
        found: dict[str, bool] = {}
        cells = (cell for record in first if record.file == first[0].file for cell in record.values.items())
        for column, value in cells:
            found[column] = found.get(column, True) and (value is None or isinstance(value, str))
        if first and not found:
            raise DataError(f"{first[0].place}: {first[0].problem}")
        return found

    def records(self, columns: Sequence[str]) -> Generator[Record]:
        """The records, all columns. Raises DataError if a file cannot be read or its structure is broken."""
        for file, path in self.files:
            with closing(_lines(file, path)) as lines:
                yield from self.kind.parse(lines, file, columns)

    def shard(self, shard: Shard, columns: Sequence[str]) -> Generator[Record] | None:
        """The records whose lines begin in the shard's part of the bytes of all files.

        If a line is no record by itself, or a file is compressed, the records of whole files; None if there are too few
        files for that.
        """
        of_line = self.kind.of_line
        if of_line is not None and not any(path.suffix.lower() in COMPRESSIONS for _, path in self.files):
            return _of_parts(parts_of(self.files, shard), of_line)
        if len(self.files) < FILES_A_SHARD * shard.of:
            return None
        return replace(self, files=list(whole_files(self.files, shard))).records(columns)


def _of_parts(parts: Iterator[Part], of_line: OfLine) -> Generator[Record]:
    for part in parts:
        with closing(part.lines()) as lines:
            for number, line in enumerate(lines, start=1):
                yield of_line(part.name, number, line)


def _lines(file: str, path: Path) -> Generator[str]:
    with reading(file), open_text(str(path)) as handle:
        yield from handle


def _is_blank(file: str, path: Path) -> bool:
    with closing(_lines(file, path)) as lines:
        return all(line.isspace() for line in lines)


def _is_utf8(text: str) -> bool:
    return shown(text) == text


def plain(lines: Iterator[str], file: str, columns: Sequence[str]) -> Generator[Record]:
    """One record a line, in a column `text`. Blank lines are passed over, but count, as in the reader of `datasets`."""
    for number, line in enumerate(lines, start=1):
        yield _plain_record(file, number, line)


def _plain_record(file: str, number: int, line: str) -> Record:
    return Record(file, number, {} if line.isspace() else {"text": line.rstrip("\r\n")}, blank=line.isspace())


PLAIN = LineKind(plain, _plain_record)


def json_lines(lines: Iterator[str], file: str, columns: Sequence[str]) -> Generator[Record]:
    """One JSON object a line; blank lines are passed over. Raises DataError on a JSON array."""
    for number, line in enumerate(lines, start=1):
        if line.isspace():
            continue
        if number == 1 and line.lstrip().startswith("["):
            raise DataError(f"{file}: is a JSON array, expected JSON lines; convert it with: jq -c '.[]'")
        yield _json_record(file, number, line)


def _json_record(file: str, number: int, line: str) -> Record:
    if line.isspace():
        return Record(file, number, {}, blank=True)
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = f"not JSON ({error}); expected one object a line" if _is_utf8(line) else "not UTF-8"
        return Record(file, number, {}, reason)
    if not isinstance(values, dict):
        return Record(file, number, {}, "not a JSON object; expected one object a line")
    return Record(file, number, values)


JSON_LINES = LineKind(json_lines, _json_record)


def comma_separated(
    lines: Iterator[str], file: str, columns: Sequence[str], *, quoted: bool = True
) -> Generator[Record]:
    """CSV as in RFC 4180, first row the names; unless `quoted`, a quotation mark is a mark like any other.

    Raises DataError if a quotation mark is out of place.
    """
    return _separated(lines, file, columns, ",", quoted)


def tab_separated(lines: Iterator[str], file: str, columns: Sequence[str], *, quoted: bool = True) -> Generator[Record]:
    """As `comma_separated`, with tabs."""
    return _separated(lines, file, columns, "\t", quoted)


def _separated(
    lines: Iterator[str], file: str, columns: Sequence[str], separator: str, quoted: bool
) -> Generator[Record]:
    csv.field_size_limit(LONGEST_CELL)
    spanned = _Spanned(lines)
    rows = csv.reader(
        spanned, delimiter=separator, strict=True, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    )
    try:
        header = next(filter(None, rows), None)
        if header is None:
            raise DataError(f"{file}: is empty, expected a first row with the names of the columns")
        _check_header(header, file, columns, separator)
        for number, row in enumerate(_filled(rows, spanned), start=1):
            if separator == "\t" and _fit_unquoted(spanned.lines, len(header)):
                raise DataError(
                    f"{file}, line {rows.line_num}: a quotation mark joins {len(spanned.lines)} lines, each of which "
                    f"is a record of {len(header)} cells by itself; {UNQUOTED}"
                )
            yield _row(row, number, header, file)
    except csv.Error as error:
        remedy = f"; {UNQUOTED}" if quoted else ""
        said = str(error).replace("\t", "\\t")
        raise DataError(f"{file}, line {rows.line_num}: {said}; check the quotation marks above it{remedy}") from error


class _Spanned:
    """Lines as they are read, with those of the latest row kept."""

    def __init__(self, source: Iterator[str]) -> None:
        self._source = source
        self.lines: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._source)
        self.lines.append(line)
        return line


def _filled(rows: Iterator[list[str]], spanned: _Spanned) -> Iterator[list[str]]:
    """The rows that are no blank lines."""
    spanned.lines.clear()
    for row in rows:
        if row:
            yield row
        spanned.lines.clear()


def _fit_unquoted(lines: Sequence[str], cells: int) -> bool:
    """Whether a row of several lines can be read without quotation: its first and last lines are whole records.

    In a row with a quoted line end, one of these two lines is too short, unless the row has a single cell.
    """
    return len(lines) > 1 and all(line.count("\t") == cells - 1 for line in (lines[0], lines[-1]))


def _row(row: list[str], number: int, header: list[str], file: str) -> Record:
    if len(row) != len(header):
        return Record(file, number, {}, f"{len(row)} cells, expected {len(header)} as in the first row")
    names = [cell.strip() for cell in (row[0].removeprefix("\ufeff"), *row[1:])]
    if names == [name.strip() for name in header]:
        return Record(file, number, {}, "it repeats the first row, the names of the columns; remove it")
    if len(header) > 1 and sorted(names) == sorted(name.strip() for name in header):
        raise DataError(
            f"{file}, record {number}: names the columns again, in another order ({', '.join(names)}); give the files "
            "that were put together as files of their own"
        )
    return Record(file, number, dict(zip(header, row, strict=True)))


def _check_header(header: list[str], file: str, columns: Sequence[str], separator: str) -> None:
    if not all(map(_is_utf8, header)):
        raise DataError(f"{file}: the names of the columns are not UTF-8; save the file as UTF-8")
    others = [mark for mark in ",;\t|" if mark != separator and mark in header[0]]
    if len(header) == 1 and others:
        raise DataError(
            f"{file}: its columns look separated by {others[0]!r}, expected {separator!r} (.csv: comma, .tsv: tab)"
        )
    for column in columns:
        if header.count(column) != 1:
            found = "no" if column not in header else "more than one"
            raise DataError(f"{file}: {found} column {column!r}; the columns are: {', '.join(header)}")
