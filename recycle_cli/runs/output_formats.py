"""The formats of a file of predictions: CSV, JSON lines, one JSON object, Parquet."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any, TextIO

from recycle_cli.runs.kept import Kinds, as_text
from recycle_cli.settings import LABEL_SEPARATOR

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import parquet

OutputColumns = Mapping[str, str]
"""What each column holds: `text`, `number`, `integer`, `spans`, lists in `texts` and `numbers`; a `kept` column holds
the values of the records."""

FORMULAS = tuple("=+-@\uff1d\uff0b\uff0d\uff20")
"""First characters, full-width ones included, by which a spreadsheet takes a cell for a formula."""

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
    """The cell with its control characters replaced, and with a `'` before it if it looks like a formula."""
    shown = "".join(mark if mark.isprintable() else "\N{REPLACEMENT CHARACTER}" for mark in cell)
    return f"'{shown}" if shown.lstrip()[:1] in FORMULAS else shown


@contextmanager
def as_json_lines(file: IO[bytes], columns: OutputColumns) -> Iterator[Add]:
    """An object a line."""
    with _text(file) as text:
        yield lambda records: text.writelines(json_line(record) + "\n" for record in records)


def json_line(value: Any) -> str:
    """A value as JSON in one line, as it stands in a file of predictions."""
    return json.dumps(value, ensure_ascii=False)


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
    """A Parquet table. A kept column has the type that fits all of its values, else it is text. That is known at the
    end, so the records wait in a temporary file until then."""
    import pyarrow as pa
    from pyarrow import parquet

    kinds = {name: Kinds() for name, kind in columns.items() if kind == "kept"}
    if not kinds:
        schema = _schema(columns, {})
        with parquet.ParquetWriter(file, schema) as writer:
            yield lambda records: writer.write_table(pa.Table.from_pylist(records, schema))
        return
    waiting = _schema(columns, dict.fromkeys(kinds, str))

    def add(records: list[dict[str, Any]]) -> None:
        for name, kind in kinds.items():
            kind.add(record[name] for record in records)
        rows = [{**record, **{name: _json(record[name]) for name in kinds}} for record in records]
        writer.write_table(pa.Table.from_pylist(rows, waiting))

    with TemporaryFile(dir=_folder_of(file)) as records:
        with parquet.ParquetWriter(records, waiting) as writer:
            yield add
        records.seek(0)
        found = {name: kind.fitting for name, kind in kinds.items()}
        with parquet.ParquetWriter(file, _schema(columns, found)) as writer:
            for table in _tables(parquet.ParquetFile(records)):
                writer.write_table(_settled(table, writer.schema, list(kinds)))


def _tables(held: "parquet.ParquetFile") -> Iterator["pa.Table"]:
    for number in range(held.num_row_groups):
        yield held.read_row_group(number)


def _settled(table: "pa.Table", schema: "pa.Schema", kept: list[str]) -> "pa.Table":
    """The table with its kept columns, which hold JSON, as the schema has them."""
    import pyarrow as pa

    for name in kept:
        field = schema.field(name)
        values = [None if one is None else json.loads(one) for one in table.column(name).to_pylist()]
        if field.type == pa.string():
            values = list(map(as_text, values))
        table = table.set_column(schema.get_field_index(name), field, pa.array(values, field.type))
    return table


def _json(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False)


def _folder_of(file: IO[bytes]) -> Path | None:
    """Where an open file lies; None for a stream."""
    path = Path(str(file.name))
    return path.parent if path.is_file() else None


def _schema(columns: OutputColumns, kept: Mapping[str, type]) -> "pa.Schema":
    """The types of the columns; `kept` has those of the kept ones."""
    import pyarrow as pa

    types = {"text": pa.string(), "number": pa.float32(), "integer": pa.int64()}
    span = {"label": pa.string(), "start": pa.int64(), "end": pa.int64(), "score": pa.float32(), "text": pa.string()}
    types |= {"texts": pa.list_(types["text"]), "numbers": pa.list_(types["number"])}
    types |= {"spans": pa.list_(pa.struct(list(span.items())))}
    plain = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    return pa.schema([(name, plain[kept[name]] if name in kept else types[kind]) for name, kind in columns.items()])
