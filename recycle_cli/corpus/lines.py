"""Records of text files: CSV, TSV, JSON lines, plain lines.

Parsed by the standard library and not by the builders of `datasets`: those guess types (`007` to 7, `NA` to nothing),
translate line ends inside quoted cells, and give up a whole file for one bad record.
"""

import csv
import json
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from recycle_cli.corpus.records import Record, shown
from recycle_cli.errors import DataError

LONGEST_CELL = 1 << 24
"""Characters; beyond that a quotation mark was never closed."""

PEEKED = 100
"""Records that decide which columns JSON lines have."""

COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")

Parse = Callable[[TextIO, str, Sequence[str]], Generator[Record]]


@dataclass(frozen=True)
class LineFiles:
    """Text files of one kind, read one after another."""

    name: str
    files: tuple[str, ...]
    parse: Parse
    total: int | None = None
    why_unlabelled = None

    def schema(self) -> Mapping[str, bool]:
        """The columns of the first file's first records; those with nothing but text in them hold text."""
        with closing(self.records(())) as records:
            first = list(islice((record for record in records if not record.blank), PEEKED))
        found: dict[str, bool] = {}
        cells = (cell for record in first if record.file == first[0].file for cell in record.values.items())
        for column, value in cells:
            found[column] = found.get(column, True) and (value is None or isinstance(value, str))
        if first and not found:
            raise DataError(f"{first[0].file}, record {first[0].number}: {first[0].problem}")
        return found

    def records(self, columns: Sequence[str]) -> Generator[Record]:
        """The records, all columns. Raises DataError if a file cannot be read or its structure is broken."""
        for file in self.files:
            try:
                with _open(file) as handle:
                    yield from self.parse(handle, file, columns)
            except (OSError, EOFError, zlib.error) as error:
                raise DataError(f"{file}: cannot be read ({error})") from error


def _open(file: str) -> TextIO:
    # Line ends stay as they are: they belong to the content that the key covers.
    how: dict[str, Any] = {"encoding": "utf-8-sig", "errors": "surrogateescape", "newline": ""}
    if not file.lower().endswith(COMPRESSIONS):
        return Path(file).open(**how)
    from datasets import StreamingDownloadManager
    from datasets.utils.file_utils import xopen

    return xopen(StreamingDownloadManager().extract(file), "r", **how)


def _is_utf8(text: str) -> bool:
    return shown(text) == text


def plain(handle: TextIO, file: str, columns: Sequence[str]) -> Generator[Record]:
    """One record a line, in a column `text`. Blank lines are passed over, but count, as in the reader of `datasets`."""
    for number, line in enumerate(handle, start=1):
        yield Record(file, number, {} if line.isspace() else {"text": line.rstrip("\r\n")}, blank=line.isspace())


def json_lines(handle: TextIO, file: str, columns: Sequence[str]) -> Generator[Record]:
    """One JSON object a line; blank lines are passed over. Raises DataError on a JSON array."""
    for number, line in enumerate(handle, start=1):
        if line.isspace():
            continue
        if number == 1 and line.lstrip().startswith("["):
            raise DataError(f"{file}: is a JSON array, expected JSON lines; convert it with: jq -c '.[]'")
        yield _json_record(file, number, line)


def _json_record(file: str, number: int, line: str) -> Record:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = f"not JSON ({error}); expected one object a line" if _is_utf8(line) else "not UTF-8"
        return Record(file, number, {}, reason)
    if not isinstance(values, dict):
        return Record(file, number, {}, "not a JSON object; expected one object a line")
    return Record(file, number, values)


def comma_separated(handle: TextIO, file: str, columns: Sequence[str]) -> Generator[Record]:
    """CSV as in RFC 4180, first row the names. Raises DataError if a quotation mark is out of place."""
    return _separated(handle, file, columns, ",")


def tab_separated(handle: TextIO, file: str, columns: Sequence[str]) -> Generator[Record]:
    """As `comma_separated`, with tabs."""
    return _separated(handle, file, columns, "\t")


def _separated(handle: TextIO, file: str, columns: Sequence[str], separator: str) -> Generator[Record]:
    csv.field_size_limit(LONGEST_CELL)
    rows = csv.reader(handle, delimiter=separator, strict=True)
    try:
        header = next(filter(None, rows), None)
        if header is None:
            raise DataError(f"{file}: is empty, expected a first row with the names of the columns")
        _check_header(header, file, columns, separator)
        yield from _rows(rows, header, file)
    except csv.Error as error:
        raise DataError(f"{file}, line {rows.line_num}: {error}; check the quotation marks above it") from error


def _rows(rows: Iterator[list[str]], header: list[str], file: str) -> Generator[Record]:
    number = 0
    for row in rows:
        if not row:
            continue
        number += 1
        if len(row) == len(header):
            yield Record(file, number, dict(zip(header, row, strict=True)))
        else:
            yield Record(file, number, {}, f"{len(row)} cells, expected {len(header)} as in the first row")


def _check_header(header: list[str], file: str, columns: Sequence[str], separator: str) -> None:
    if not all(map(_is_utf8, header)):
        raise DataError(f"{file}: the names of the columns are not UTF-8; save the file as UTF-8")
    others = [mark for mark in ",;\t|" if mark != separator and mark in header[0]]
    if len(header) == 1 and others:
        raise DataError(
            f"{file}: separated by {others[0]!r} as it seems, expected {separator!r} (.csv: comma, .tsv: tab)"
        )
    for column in columns:
        if header.count(column) != 1:
            found = "no" if column not in header else "more than one"
            raise DataError(f"{file}: {found} column {column!r}; the columns are: {', '.join(header)}")
