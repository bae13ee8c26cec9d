"""Records of tables with typed columns: Parquet, Arrow, a saved dataset, a dataset on the hub."""

import glob
import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from recycle_cli.corpus.records import Record
from recycle_cli.errors import DataError

BATCH = 1000
"""Records turned into Python objects at once."""


class Table(NamedTuple):
    """An open table: the `datasets` features of its columns, and its rows as Arrow batches."""

    features: Mapping[str, Any]
    batches: Iterator[Any]


Open = Callable[[Sequence[str] | None], Table]
"""Columns (None: all; those that are not there are left out) to a table."""


@dataclass(frozen=True)
class Tables:
    """Tables read one after another; `parts` holds each one's name and how to open it."""

    name: str
    parts: Mapping[str, Open]
    total: int | None = None
    why_unlabelled = None

    def schema(self) -> Mapping[str, bool]:
        """The columns of the first table."""
        part, opened = next(iter(self.parts.items()))
        features = _guarded(part, opened, None).features
        return {
            name: getattr(feature, "dtype", None) in ("string", "large_string") for name, feature in features.items()
        }

    def records(self, columns: Sequence[str]) -> Generator[Record]:
        """The records, the named columns alone. Raises DataError if a table cannot be read."""
        for part, opened in self.parts.items():
            table = _guarded(part, opened, list(columns))
            if missing := [column for column in columns if column not in table.features]:
                raise DataError(f"{part}: no column {missing[0]!r}; the columns are: {', '.join(table.features)}")
            for number, values in enumerate(_rows(part, table, columns), start=1):
                yield Record(part, number, dict(zip(columns, values, strict=True)))


def _rows(part: str, table: Table, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    names = [_class_names(table.features[column]) for column in columns]
    while (batch := _guarded(part, next, table.batches, None)) is not None:
        cells = (batch.column(column).to_pylist() for column in columns)
        yield from zip(*map(_cells, cells, names), strict=True)


def _cells(values: list[Any], names: Sequence[str] | None) -> list[Any]:
    """Class numbers as class names, also in lists; -1, by which `datasets` marks a hidden label, as nothing."""
    if names is None:
        return values
    return [_cells(value, names) if isinstance(value, list) else _class_name(value, names) for value in values]


def _class_name(value: int | None, names: Sequence[str]) -> str | None:
    return names[value] if value is not None and 0 <= value < len(names) else None


def _class_names(feature: Any) -> Sequence[str] | None:
    from datasets import ClassLabel

    feature = getattr(feature, "feature", feature)
    return feature.names if isinstance(feature, ClassLabel) else None


def _guarded(part: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call into `datasets`, whose failures on bad input are of these kinds (Arrow's own are ValueErrors)."""
    from datasets.exceptions import DatasetsError

    try:
        return function(*arguments)
    except (DatasetsError, OSError, EOFError, ValueError, NotImplementedError) as error:
        raise DataError(f"{part}: cannot be read ({_brief(error.__cause__ or error)})") from error


def _brief(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


@cache
def _quiet() -> None:
    # Its log repeats, with a traceback, what our message says in one line.
    from datasets import disable_progress_bars
    from datasets.utils import logging

    disable_progress_bars()
    logging.set_verbosity(logging.CRITICAL)


def parquet_files(name: str, files: Sequence[str]) -> Tables:
    """Parquet files; only the columns in use are read."""
    from pyarrow.parquet import read_metadata

    total = sum(_guarded(file, read_metadata, file).num_rows for file in files)
    return Tables(name, {file: partial(_parquet, file) for file in files}, total)


def _parquet(file: str, columns: Sequence[str] | None) -> Table:
    # By pyarrow: the threads that `datasets` starts to stream Parquet can abort the process as it exits
    # (apache/arrow#45214, huggingface/datasets#7566).
    from datasets import Features
    from pyarrow.parquet import ParquetFile

    opened = ParquetFile(file, memory_map=True)
    features = Features.from_arrow_schema(opened.schema_arrow)
    kept = [name for name in features if columns is None or name in columns]
    return Table(features, opened.iter_batches(BATCH, columns=kept, use_threads=False))


def arrow_files(name: str, files: Sequence[str]) -> Tables:
    """Arrow files, in the file or the stream format."""
    return Tables(name, {file: partial(_arrow, file) for file in files})


def _arrow(file: str, columns: Sequence[str] | None) -> Table:
    from datasets import load_dataset

    _quiet()
    name = glob.escape(str(Path(file).resolve()))
    # Streaming writes nothing but a lock, which would otherwise end up in the user's home.
    with TemporaryDirectory(prefix="recycle-") as scratch:
        return _table(
            load_dataset("arrow", data_files=[name], split="train", streaming=True, cache_dir=scratch), columns
        )


def _table(dataset: Any, columns: Sequence[str] | None) -> Table:
    """A table of a `Dataset` or an `IterableDataset`; the features of one that declares none are those of its rows."""
    from datasets import Features

    features = dataset.features
    if features is None:
        first = next(iter(dataset.with_format("arrow").iter(batch_size=1)), None)
        features = {} if first is None else Features.from_arrow_schema(first.schema)
    if columns is not None:
        dataset = dataset.select_columns([column for column in columns if column in features])
    return Table(features, iter(dataset.with_format("arrow").iter(batch_size=BATCH)))


def is_saved(folder: str) -> bool:
    """Whether the folder was written by `Dataset.save_to_disk`."""
    return any(Path(folder, name).is_file() for name in ("dataset_info.json", "dataset_dict.json"))


def saved_folder(folder: str) -> Tables:
    """A folder written by `Dataset.save_to_disk`, mapped into memory. Raises DataError if it has several splits."""
    if Path(folder, "dataset_dict.json").is_file():
        splits = json.loads(Path(folder, "dataset_dict.json").read_text(encoding="utf-8"))["splits"]
        raise DataError(f"{folder}: holds several splits ({', '.join(splits)}); name one: {Path(folder, splits[0])}")
    if not Path(folder, "dataset_info.json").is_file():
        raise DataError(
            f"{folder}: is no saved dataset; to read a folder's files give '{Path(folder, '*.csv')}' or such"
        )
    saved = _guarded(folder, _load_saved, folder)
    return Tables(folder, {folder: partial(_table, saved)}, len(saved))


def _load_saved(folder: str) -> Any:
    from datasets import load_from_disk

    _quiet()
    try:
        return load_from_disk(folder)
    except IndexError as error:  # what it makes of no rows at all
        raise DataError(f"{folder}: is empty, expected at least one record") from error


def hub_dataset(source: str) -> Tables:
    """A dataset on the hub, streamed: `hub:NAME`, `hub:NAME:SPLIT`, `hub:NAME:CONFIG`, `hub:NAME:CONFIG:SPLIT`."""
    name, *rest = source.removeprefix("hub:").split(":")
    if not name or len(rest) > 2:
        raise DataError(f"{source}: expected hub:NAME[:config][:split], such as hub:imdb:test")
    splits, split = _guarded(source, _hub_splits, name, *rest)
    if split is None and len(splits) == 1:
        split = next(iter(splits))
    if split not in splits:
        raise DataError(
            f"{source}: which split? There are: {', '.join(splits)}; name one, as in hub:{name}:{next(iter(splits))}"
        )
    return Tables(source, {source: partial(_table, splits[split])})


def _hub_splits(name: str, first: str | None = None, second: str | None = None) -> tuple[Mapping[str, Any], str | None]:
    """The splits there are, and the one asked for. `first` alone is a configuration if there is one of that name."""
    from datasets import get_dataset_config_names, load_dataset

    _quiet()
    is_config = second is not None or first in get_dataset_config_names(name)
    splits = load_dataset(name, (first or None) if is_config else None, streaming=True)
    return splits, second if is_config else first
