"""The formats of a file of predictions: CSV, JSON lines, one JSON object, Parquet."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import IO, TYPE_CHECKING, Any, TextIO

from recycle_cli.corpus.boundary import brief
from recycle_cli.errors import DataError
from recycle_cli.runs.kept import as_text, kind_of_values
from recycle_cli.settings import LABEL_SEPARATOR

if TYPE_CHECKING:
    import pyarrow as pa

OutputColumns = Mapping[str, str]
"""What each column holds: `text`, `number`, `integer`, several in `texts`, `numbers`; `kept` as the record has it."""

FORMULAS = tuple("=+-@\uff1d\uff0b\uff0d\uff20")
"""The marks, also of full width, by which a spreadsheet takes a cell for a formula."""

Add = Callable[[list[dict[str, Any]]], None]

Format = Callable[[IO[bytes], OutputColumns], AbstractContextManager[Add]]
"""Makes, for an open file and the columns of the records, the function that adds records to it."""


@contextmanager
def _text(file: IO[bytes]) -> Iterator[TextIO]:
    """The file as one of text; it stays open."""
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    try:
        yield text
    finally:
        text.detach()


@contextmanager
def as_csv(file: IO[bytes], columns: OutputColumns, *, cell: Callable[[str], str]) -> Iterator[Add]:
    """CSV; each cell of text goes through `cell`."""
    lists = [name for name, kind in columns.items() if kind == "texts"]
    kept = [name for name, kind in columns.items() if kind == "kept"]
    texts = [name for name, kind in columns.items() if kind in ("text", "texts", "kept")]

    def row(record: Mapping[str, Any]) -> dict[str, Any]:
        joined = {name: LABEL_SEPARATOR.join(record[name]) or LABEL_SEPARATOR for name in lists}
        found = {**record, **joined, **{name: as_text(record[name]) for name in kept}}
        return {**found, **{name: cell(found[name]) for name in texts if isinstance(found[name], str)}}

    with _text(file) as text:
        writer = csv.DictWriter(text, list(columns))
        writer.writerow({name: cell(name) for name in columns})
        yield lambda records: writer.writerows(map(row, records))


def tamed(cell: str) -> str:
    """A cell without control characters, which a spreadsheet does not take for a formula."""
    shown = "".join(mark if mark.isprintable() else "\N{REPLACEMENT CHARACTER}" for mark in cell)
    return f"'{shown}" if shown.lstrip()[:1] in FORMULAS else shown


@contextmanager
def as_json_lines(file: IO[bytes], columns: OutputColumns) -> Iterator[Add]:
    """An object a line."""
    with _text(file) as text:
        yield lambda records: text.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


@contextmanager
def as_json_by_id(column: str, file: IO[bytes], columns: OutputColumns) -> Iterator[Add]:
    """One object with a column's value for each id."""
    separator = "\n"
    with _text(file) as text:

        def write(records: list[dict[str, Any]]) -> None:
            nonlocal separator
            for record in records:
                key, value = (json.dumps(one, ensure_ascii=False) for one in (record["id"], record[column]))
                text.write(f"{separator}{key}: {value}")
                separator = ",\n"

        text.write("{")
        yield write
        text.write("\n}\n")


@contextmanager
def as_parquet(file: IO[bytes], columns: OutputColumns) -> Iterator[Add]:
    """A table. A kept column has the type of its values in the first records that are written."""
    from pyarrow import parquet

    kept = [name for name, kind in columns.items() if kind == "kept"]
    writers: list[parquet.ParquetWriter] = []

    def writer_for(records: list[dict[str, Any]]) -> parquet.ParquetWriter:
        if not writers:
            writers.append(parquet.ParquetWriter(file, _schema(columns, records)))
        return writers[0]

    def add(records: list[dict[str, Any]]) -> None:
        writer = writer_for(records)
        writer.write_table(_table(records, kept, writer.schema))

    try:
        yield add
        writer_for([])
    finally:
        for writer in writers:
            writer.close()


def _schema(columns: OutputColumns, records: list[dict[str, Any]]) -> "pa.Schema":
    """The types of the columns; those of kept ones fit their values in these records."""
    import pyarrow as pa

    types = {"text": pa.string(), "number": pa.float32(), "integer": pa.int64()}
    span = {"label": pa.string(), "start": pa.int64(), "end": pa.int64(), "score": pa.float32(), "text": pa.string()}
    types |= {"texts": pa.list_(types["text"]), "numbers": pa.list_(types["number"])}
    types |= {"spans": pa.list_(pa.struct(list(span.items())))}
    plain = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}

    def type_of(name: str, kind: str) -> "pa.DataType":
        return plain[kind_of_values(record[name] for record in records)] if kind == "kept" else types[kind]

    return pa.schema([(name, type_of(name, kind)) for name, kind in columns.items()])


def _table(records: list[dict[str, Any]], kept: list[str], schema: "pa.Schema") -> "pa.Table":
    """The records as Arrow has them. Raises DataError for values of kept columns that their types cannot hold."""
    import pyarrow as pa

    texts = [name for name in kept if schema.field(name).type == pa.string()]
    rows = [{**record, **{name: as_text(record[name]) for name in texts}} for record in records]
    try:
        table = pa.Table.from_pylist(rows, schema)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise _several_kinds(brief(error)) from error
    for name in kept:
        # Arrow takes 1.5 for a whole number, and makes it 1.
        for row, taken in zip(rows, table.column(name).to_pylist(), strict=True):
            if row[name] != taken:
                raise _several_kinds(f"{row[name]!r} would be {taken!r} in {name!r}")
    return table


def _several_kinds(said: str) -> DataError:
    return DataError(
        f"a column of --keep-columns holds values of several kinds ({said}), which Parquet cannot; write .jsonl or .csv"
    )
