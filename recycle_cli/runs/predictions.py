"""Prediction files, written as they come and put in place when whole: CSV, JSON lines or Parquet, by the ending."""

import csv
import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, Protocol, TextIO

from recycle_cli.corpus.boundary import brief
from recycle_cli.disk import expanded, make_folder, replacing
from recycle_cli.errors import DataError, StorageError, UsageError
from recycle_cli.runs.kept import as_text, kind_of_values, plain
from recycle_cli.settings import LABEL_SEPARATOR

NONE: Mapping[str, str] = MappingProxyType({})


class Identified(Protocol):
    """A record that is predicted."""

    @property
    def id(self) -> str:
        """What it is called in the file."""

    @property
    def kept(self) -> Mapping[str, Any]:
        """Values of further columns of the record, by column."""


Write = Callable[[Sequence[Identified], Sequence[dict[str, Any]]], None]

Columns = Mapping[str, str]
"""What each column holds: `text`, `number`, `integer`, several in `texts`, `numbers`; `kept` as the record has it."""

ENDINGS = (".csv", ".jsonl", ".parquet")

BY_ID = ".json"
"""The ending of a file that holds one column's values by ids, as one object."""

FORMULAS = tuple("=+-@\uff1d\uff0b\uff0d\uff20")
"""The marks, also of full width, by which a spreadsheet takes a cell for a formula."""

STDOUT = "-"
"""Names stdout where a file is expected."""
NOT_IN_CSV = frozenset({"numbers", "spans"})
"""What no cell of a CSV file can hold in a form that other programs read."""


def usual_ending(columns: Mapping[str, str]) -> str:
    """The kind of file that predictions of these columns are written to if the user names none."""
    kinds = set(columns.values())
    return ".jsonl" if "spans" in kinds else ".parquet" if "numbers" in kinds else ".csv"


@contextmanager
def open_output(
    path: str,
    columns: Columns,
    *,
    kept: Mapping[str, str] = NONE,
    format: str | None = None,
    keyed: str | None = None,
    csv_safe: bool = False,
) -> Iterator[Write]:
    """A function that adds records: each one's `id`, its kept columns, and a prediction's value for each column.

    kept    the names in the file of the columns that are written as the record has them
    format  `csv`, `jsonl` or `parquet`; None: as the name ends, or `jsonl` for stdout
    keyed   the column that a file ending in .json holds by ids, as one object; None if there is none

    csv_safe  no cell of a CSV file is a formula to a spreadsheet, nor holds a control character

    The file appears under its name, whole and synced, when all went well; until then it has a name of its own beside
    it. What goes to stdout goes there at once. Raises as `kind_of_output`, StorageError if it cannot be written,
    BrokenPipeError if nobody reads stdout any more.
    """
    kind = kind_of_output(path, columns, format, keyed, csv_safe=csv_safe)
    fields = {"id": "text", **dict.fromkeys(kept.values(), "kept"), **columns}
    written = partial(_csv, cell=_tame if csv_safe else str)
    openers: dict[str, Opener] = {".csv": written, ".jsonl": _jsonl, ".parquet": _parquet}
    opener = openers.get(kind) or partial(_json_by_id, str(keyed))
    with _place(path) as file, ExitStack() as opened:
        with _telling(path):
            write = opened.enter_context(opener(file, fields))

        def add(examples: Sequence[Identified], predictions: Sequence[dict[str, Any]]) -> None:
            records = _records(examples, predictions, kept)
            with _telling(path):
                write(records)
                if path == STDOUT:
                    file.flush()

        try:
            yield add
        except BaseException:
            # What is left to write no longer matters, nor whether it can be.
            with suppress(OSError):
                opened.close()
            raise
        with _telling(path):
            opened.close()


def kind_of_output(
    path: str, columns: Columns, format: str | None = None, keyed: str | None = None, *, csv_safe: bool = False
) -> str:
    """The ending that says how predictions are written.

    Raises UsageError for an unknown one, what CSV cannot hold (NOT_IN_CSV), `csv_safe` for another format, and a path
    at which there is something other than a file.
    """
    kind = f".{format}" if format else ".jsonl" if path == STDOUT else Path(path).suffix
    endings = [ending for ending in ENDINGS if ending != ".csv" or not NOT_IN_CSV & set(columns.values())]
    endings += [] if keyed is None or format else [BY_ID]
    if path != STDOUT and Path(expanded(path)).exists() and not Path(expanded(path)).is_file():
        raise UsageError(f"--output {path}: there is something there that is no file; choose another name")
    if csv_safe and kind in endings and kind != ".csv":
        raise UsageError(f"--csv-safe: {path} is no .csv file; leave the option out")
    if kind in endings:
        return kind
    if format:
        raise UsageError(f"--output-format {format}: a list is no cell; take one of {', '.join(endings)}")
    raise UsageError(f"--output {path}: the ending must be one of {', '.join(endings)}; or say it with --output-format")


@contextmanager
def _place(path: str) -> Iterator[IO[bytes]]:
    """The open file, which is put in place when all went well; or stdout."""
    if path == STDOUT:
        yield sys.stdout.buffer
        return
    target = Path(expanded(path))
    with _telling(path):
        make_folder(target.parent)
    with _told(path, replacing(target)) as place, ExitStack() as opened:
        with _telling(path):
            file = opened.enter_context(place.open("wb"))
        try:
            yield file
        except BaseException:
            with suppress(OSError):
                opened.close()
            raise
        with _telling(path):
            opened.close()


@contextmanager
def _told(path: str, context: AbstractContextManager[Path]) -> Iterator[Path]:
    """A context whose own failures to write are StorageErrors, while those of the block stay what they are."""
    with _telling(path):
        value = context.__enter__()
    try:
        yield value
    except BaseException:
        context.__exit__(*sys.exc_info())
        raise
    with _telling(path):
        context.__exit__(None, None, None)


@contextmanager
def _telling(path: str) -> Iterator[None]:
    """Failures to write as StorageError: of our own writing alone, for those of the caller name other files."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StorageError(f"{path} cannot be written ({error.strerror or error})") from error


def _records(
    examples: Sequence[Identified], predictions: Sequence[dict[str, Any]], kept: Mapping[str, str]
) -> list[dict[str, Any]]:
    return [
        {
            "id": example.id,
            **{name: plain(example.kept[column], column) for column, name in kept.items()},
            **found,
        }
        for example, found in zip(examples, predictions, strict=True)
    ]


Add = Callable[[list[dict[str, Any]]], None]

Opener = Callable[[IO[bytes], Columns], AbstractContextManager[Add]]
"""Writes records of these columns to an open file."""


@contextmanager
def _text(file: IO[bytes]) -> Iterator[TextIO]:
    """The file as one of text; it stays open."""
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    try:
        yield text
    finally:
        text.detach()


@contextmanager
def _csv(file: IO[bytes], columns: Columns, *, cell: Callable[[str], str]) -> Iterator[Add]:
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


def _tame(cell: str) -> str:
    """A cell without control characters, which a spreadsheet does not take for a formula."""
    shown = "".join(mark if mark.isprintable() else "\N{REPLACEMENT CHARACTER}" for mark in cell)
    return f"'{shown}" if shown.lstrip()[:1] in FORMULAS else shown


@contextmanager
def _jsonl(file: IO[bytes], columns: Columns) -> Iterator[Add]:
    with _text(file) as text:
        yield lambda records: text.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


@contextmanager
def _json_by_id(column: str, file: IO[bytes], columns: Columns) -> Iterator[Add]:
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


def _several_kinds(said: str) -> DataError:
    return DataError(
        f"a column of --keep-columns holds values of several kinds ({said}), which Parquet cannot; write .jsonl or .csv"
    )


@contextmanager
def _parquet(file: IO[bytes], columns: Columns) -> Iterator[Add]:
    """A kept column has the type of its values in the first records that are written."""
    import pyarrow as pa
    from pyarrow import parquet

    types = {"text": pa.string(), "number": pa.float32(), "integer": pa.int64()}
    span = {"label": pa.string(), "start": pa.int64(), "end": pa.int64(), "score": pa.float32(), "text": pa.string()}
    types |= {"texts": pa.list_(types["text"]), "numbers": pa.list_(types["number"])}
    types |= {"spans": pa.list_(pa.struct(list(span.items())))}
    own = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    kept = [name for name, kind in columns.items() if kind == "kept"]
    writers: list[parquet.ParquetWriter] = []

    def writer_for(records: list[dict[str, Any]]) -> parquet.ParquetWriter:
        if not writers:
            found = {name: own[kind_of_values(record[name] for record in records)] for name in kept}
            schema = pa.schema([(name, found.get(name) or types[kind]) for name, kind in columns.items()])
            writers.append(parquet.ParquetWriter(file, schema))
        return writers[0]

    def add(records: list[dict[str, Any]]) -> None:
        writer = writer_for(records)
        texts = [name for name in kept if writer.schema.field(name).type == pa.string()]
        rows = [{**record, **{name: as_text(record[name]) for name in texts}} for record in records]
        try:
            table = pa.Table.from_pylist(rows, writer.schema)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            raise _several_kinds(brief(error)) from error
        for name in kept:
            # Arrow takes 1.5 for a whole number, and makes it 1.
            for row, taken in zip(rows, table.column(name).to_pylist(), strict=True):
                if row[name] != taken:
                    raise _several_kinds(f"{row[name]!r} would be {taken!r} in {name!r}")
        writer.write_table(table)

    try:
        yield add
        writer_for([])
    finally:
        for writer in writers:
            writer.close()
