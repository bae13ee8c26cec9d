"""The file of predictions: written as they come, and put in place when it is whole."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, Protocol, TypeVar

from recycle_cli.disk import STDOUT, expanded, make_folder, replacing
from recycle_cli.errors import StorageError, UsageError
from recycle_cli.runs.kept import as_json
from recycle_cli.runs.output_formats import (
    Format,
    OutputColumns,
    as_csv,
    as_json_by_id,
    as_json_lines,
    as_parquet,
    tamed,
)

NOTHING_KEPT: Mapping[str, str] = MappingProxyType({})

T = TypeVar("T")


class Identified(Protocol):
    """A record that is predicted."""

    @property
    def id(self) -> str:
        """What it is called in the file."""

    @property
    def kept(self) -> Mapping[str, Any]:
        """Values of further columns of the record, by column."""


Write = Callable[[Sequence[Identified], Sequence[dict[str, Any]]], None]

OUTPUT_ENDINGS = (".csv", ".jsonl", ".parquet")

BY_ID = ".json"
"""The ending of a file that holds one column's values by ids, as one object."""

NOT_IN_CSV = frozenset({"numbers", "spans"})
"""Kinds of columns that other programs cannot read from a cell of a CSV file."""


def usual_ending(columns: Mapping[str, str]) -> str:
    """The ending of a file for predictions of these columns if the user names no file."""
    kinds = set(columns.values())
    return ".jsonl" if "spans" in kinds else ".parquet" if "numbers" in kinds else ".csv"


@contextmanager
def open_output(
    path: str,
    columns: OutputColumns,
    *,
    kept: Mapping[str, str] = NOTHING_KEPT,
    format: str | None = None,
    keyed: str | None = None,
    csv_safe: bool = False,
) -> Iterator[Write]:
    """A function that adds records: the `id` and the kept columns of each, and the columns of its prediction.

    kept      kept columns of the records, with their names in the file
    format    `csv`, `jsonl` or `parquet`; None: as the name ends, or `jsonl` for stdout
    keyed     the column that a .json file holds by ids, as one object; None if there is none
    csv_safe  write no cell of a CSV file that a spreadsheet takes for a formula, and no control character

    The file is written under a temporary name beside its own, and gets its name, synced, when all went well. What goes
    to stdout goes there at once. Raises as `kind_of_output`, StorageError if it cannot be written, BrokenPipeError if
    nobody reads stdout any more.
    """
    formats: dict[str, Format] = {
        ".csv": partial(as_csv, cell=tamed if csv_safe else str),
        ".jsonl": as_json_lines,
        ".parquet": as_parquet,
        BY_ID: partial(as_json_by_id, str(keyed)),
    }
    chosen = formats[kind_of_output(path, columns, format, keyed, csv_safe=csv_safe)]
    fields = {"id": "text", **dict.fromkeys(kept.values(), "kept"), **columns}
    with _place(path) as file, _guarded(path, lambda: chosen(file, fields)) as write:

        def add(examples: Sequence[Identified], predictions: Sequence[dict[str, Any]]) -> None:
            records = _records(examples, predictions, kept)
            with _storage_errors(path):
                write(records)
                if path == STDOUT:
                    file.flush()

        yield add


def kind_of_output(
    path: str, columns: OutputColumns, format: str | None = None, keyed: str | None = None, *, csv_safe: bool = False
) -> str:
    """The ending that says how predictions are written.

    Raises UsageError for an unknown one, what CSV cannot hold (NOT_IN_CSV), `csv_safe` for another format, and a path
    at which there is something other than a file.
    """
    kind = f".{format}" if format else ".jsonl" if path == STDOUT else Path(path).suffix
    endings = [ending for ending in OUTPUT_ENDINGS if ending != ".csv" or not NOT_IN_CSV & set(columns.values())]
    endings += [] if keyed is None or format else [BY_ID]
    if path != STDOUT and Path(expanded(path)).exists() and not Path(expanded(path)).is_file():
        raise UsageError(f"--output {path}: it exists and is no file; choose another name")
    if csv_safe and kind in endings and kind != ".csv":
        raise UsageError(f"--csv-safe: {path} is no .csv file; leave the option out")
    if kind in endings:
        return kind
    if format:
        raise UsageError(f"--output-format {format}: a cell cannot hold a list; take one of {', '.join(endings)}")
    raise UsageError(
        f"--output {path}: expected an ending of {', '.join(endings)}; or name the format with --output-format"
    )


@contextmanager
def _place(path: str) -> Iterator[IO[bytes]]:
    """The open file, which is put in place when all went well; or stdout."""
    if path == STDOUT:
        yield sys.stdout.buffer
        return
    target = Path(expanded(path))
    with _storage_errors(path):
        make_folder(target.parent)
    with (
        _guarded(path, lambda: replacing(target)) as unfinished,
        _guarded(path, lambda: unfinished.open("wb")) as file,
    ):
        yield file


@contextmanager
def _guarded(path: str, made: Callable[[], AbstractContextManager[T]]) -> Iterator[T]:
    """A context that raises its own OSErrors as StorageErrors, and those of the block as they are."""
    with _storage_errors(path):
        context = made()
        value = context.__enter__()
    try:
        yield value
    except BaseException:
        # The block has failed, so the file is dropped: whether the rest of it can be written no longer matters.
        with suppress(OSError):
            context.__exit__(*sys.exc_info())
        raise
    with _storage_errors(path):
        context.__exit__(None, None, None)


@contextmanager
def _storage_errors(path: str) -> Iterator[None]:
    """Raise OSErrors as StorageErrors that name `path`. Only our own writing belongs inside."""
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
            **{name: as_json(example.kept[column], column) for column, name in kept.items()},
            **found,
        }
        for example, found in zip(examples, predictions, strict=True)
    ]
