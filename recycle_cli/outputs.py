"""Prediction files, written as they come and put in place when whole: CSV, JSON lines or Parquet, by the ending."""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from recycle_cli.errors import StorageError, UsageError
from recycle_cli.keys import Sample

Write = Callable[[Sequence[Sample], Sequence[dict[str, Any]]], None]

ENDINGS = (".csv", ".jsonl", ".parquet")


@contextmanager
def open_output(path: str, names: Sequence[str]) -> Iterator[Write]:
    """A function that adds records: `id`, `label`, `score`, and `score_NAME` for each class.

    The file appears under its name when all went well; until then it has the ending `.partial`. Raises UsageError for
    an unknown ending, StorageError where it cannot be written.
    """
    target = Path(path)
    kinds: dict[str, Callable[[Path, Sequence[str]], Any]] = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}
    if target.suffix not in kinds:
        raise UsageError(f"--output {path}: the ending must be one of {', '.join(ENDINGS)}")
    partial = target.with_name(f"{target.name}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with kinds[target.suffix](partial, ["id", "label", "score", *(f"score_{name}" for name in names)]) as write:
            yield lambda samples, predictions: write(_records(samples, predictions))
        partial.replace(target)
    except OSError as error:
        raise StorageError(f"{path} cannot be written ({error.strerror or error})") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _records(samples: Sequence[Sample], predictions: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "id": sample.id,
            "label": found["label"],
            "score": found["score"],
            **{f"score_{name}": score for name, score in found["scores"].items()},
        }
        for sample, found in zip(samples, predictions, strict=True)
    ]


@contextmanager
def _csv(path: Path, columns: Sequence[str]) -> Iterator[Callable[[list[dict[str, Any]]], None]]:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        yield writer.writerows


@contextmanager
def _jsonl(path: Path, columns: Sequence[str]) -> Iterator[Callable[[list[dict[str, Any]]], None]]:
    with path.open("w", encoding="utf-8") as file:
        yield lambda records: file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


@contextmanager
def _parquet(path: Path, columns: Sequence[str]) -> Iterator[Callable[[list[dict[str, Any]]], None]]:
    import pyarrow as pa
    from pyarrow import parquet

    types = [pa.string(), pa.string(), *(pa.float32() for _ in columns[2:])]
    schema = pa.schema(list(zip(columns, types, strict=True)))
    with parquet.ParquetWriter(path, schema) as writer:
        yield lambda records: writer.write_table(pa.Table.from_pylist(records, schema))
