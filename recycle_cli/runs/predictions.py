"""Prediction files, written as they come and put in place when whole: CSV, JSON lines or Parquet, by the ending."""

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from recycle_cli.errors import StorageError, UsageError
from recycle_cli.settings import LABEL_SEPARATOR


class Identified(Protocol):
    """A record that is predicted."""

    @property
    def id(self) -> str:
        """What it is called in the file."""


Write = Callable[[Sequence[Identified], Sequence[dict[str, Any]]], None]

ENDINGS = (".csv", ".jsonl", ".parquet")


@contextmanager
def open_output(path: str, columns: Mapping[str, str]) -> Iterator[Write]:
    """A function that adds records: each one's `id`, and a prediction's value for each of the columns.

    `columns` tell what each holds: `text`, `number`, or several in `texts` and `numbers`. The file appears under its
    name when all went well; until then it has the ending `.partial`. Raises UsageError for an unknown ending and for
    vectors in CSV, StorageError if it cannot be written.
    """
    target = Path(path)
    kinds: dict[str, Callable[[Path, Mapping[str, str]], Any]] = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}
    endings = [ending for ending in ENDINGS if ending != ".csv" or "numbers" not in columns.values()]
    if target.suffix not in endings:
        raise UsageError(f"--output {path}: the ending must be one of {', '.join(endings)}")
    partial = target.with_name(f"{target.name}.partial")
    try:
        with ExitStack() as opened:
            with _telling(path):
                target.parent.mkdir(parents=True, exist_ok=True)
                write = opened.enter_context(kinds[target.suffix](partial, {"id": "text", **columns}))

            def add(examples: Sequence[Identified], predictions: Sequence[dict[str, Any]]) -> None:
                with _telling(path):
                    write(_records(examples, predictions))

            try:
                yield add
            except BaseException:
                # What is left to write no longer matters, nor whether it can be.
                with suppress(OSError):
                    opened.close()
                raise
            with _telling(path):
                opened.close()
        with _telling(path):
            partial.replace(target)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


@contextmanager
def _telling(path: str) -> Iterator[None]:
    """Failures to write as StorageError: of our own writing alone, for those of the caller name other files."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path} cannot be written ({error.strerror or error})") from error


def _records(examples: Sequence[Identified], predictions: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"id": example.id, **found} for example, found in zip(examples, predictions, strict=True)]


@contextmanager
def _csv(path: Path, columns: Mapping[str, str]) -> Iterator[Callable[[list[dict[str, Any]]], None]]:
    lists = [name for name, kind in columns.items() if kind == "texts"]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(columns))
        writer.writeheader()
        yield lambda records: writer.writerows(
            {**record, **{name: LABEL_SEPARATOR.join(record[name]) or LABEL_SEPARATOR for name in lists}}
            for record in records
        )


@contextmanager
def _jsonl(path: Path, columns: Mapping[str, str]) -> Iterator[Callable[[list[dict[str, Any]]], None]]:
    with path.open("w", encoding="utf-8") as file:
        yield lambda records: file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


@contextmanager
def _parquet(path: Path, columns: Mapping[str, str]) -> Iterator[Callable[[list[dict[str, Any]]], None]]:
    import pyarrow as pa
    from pyarrow import parquet

    types = {"text": pa.string(), "number": pa.float32()}
    types |= {"texts": pa.list_(types["text"]), "numbers": pa.list_(types["number"])}
    schema = pa.schema([(name, types[kind]) for name, kind in columns.items()])
    with parquet.ParquetWriter(path, schema) as writer:
        yield lambda records: writer.write_table(pa.Table.from_pylist(records, schema))
