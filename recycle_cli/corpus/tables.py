"""Records of tables with typed columns: Parquet, Arrow, a saved dataset, a dataset on the hub."""

import json
import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import accumulate, count
from pathlib import Path
from typing import Any, NamedTuple

from recycle_cli.corpus.boundary import reading
from recycle_cli.corpus.records import Record
from recycle_cli.disk import check_regular
from recycle_cli.errors import DataError
from recycle_cli.pointers import check_fetched
from recycle_cli.settings import Shard

BATCH = 1000
"""Records turned into Python objects at once."""


class Table(NamedTuple):
    """An open table.

    columns  the names of its columns, each with whether it holds text
    classes  the names of the classes, for each column in use that holds class numbers
    batches  its rows as Arrow batches
    """

    columns: Sequence[tuple[str, bool]]
    classes: Mapping[str, Sequence[str]]
    batches: Iterator[Any]


Open = Callable[[Sequence[str], range | None], Table]
"""Opens a table for the columns in use and the places of the rows to read, None for all. Columns that it lacks are left
out, and its other columns are not read."""


@dataclass(frozen=True)
class Tables:
    """Tables read one after another.

    parts  each one's name and how to open it
    rows   of each, if the tables tell without being read
    """

    name: str
    parts: Mapping[str, Open]
    rows: Mapping[str, int] | None = None
    why_unlabelled = None
    doubt = None

    @property
    def total(self) -> int | None:
        """Rows in all, if the tables tell."""
        return None if self.rows is None else sum(self.rows.values())

    def schema(self) -> Mapping[str, bool]:
        """The columns of the first table."""
        part, opened = next(iter(self.parts.items()))
        return dict(_guarded(part, opened, (), None).columns)

    def records(self, columns: Sequence[str]) -> Generator[Record]:
        """The records, the named columns alone. Raises DataError if a table cannot be read."""
        yield from self._records(columns, dict.fromkeys(self.parts))

    def shard(self, shard: Shard, columns: Sequence[str]) -> Generator[Record] | None:
        """The records in the shard's part of all rows; None if the tables do not tell how many they have."""
        if self.rows is None:
            return None
        wanted = zip(self.rows, shard.places_in_each(list(self.rows.values())), strict=True)
        return self._records(columns, {part: rows for part, rows in wanted if rows})

    def _records(self, columns: Sequence[str], parts: Mapping[str, range | None]) -> Generator[Record]:
        for part, rows in parts.items():
            table = _guarded(part, self.parts[part], columns, rows)
            _check_columns(part, [name for name, _ in table.columns], columns)
            numbers = count(1 if rows is None else 1 + rows.start)
            while (batch := _guarded(part, next, table.batches, None)) is not None:
                for values, problem in _rows(batch, table.classes, columns):
                    yield Record(part, next(numbers), values, problem)


def _check_columns(part: str, names: Sequence[str], columns: Sequence[str]) -> None:
    for column in columns:
        if names.count(column) != 1:
            found = "no" if column not in names else "more than one"
            raise DataError(f"{part}: {found} column {column!r}; the columns are: {', '.join(names)}")


Row = tuple[Mapping[str, Any], str | None]
"""The values of a record, and the reason if they cannot be read."""


def _rows(batch: Any, classes: Mapping[str, Sequence[str]], columns: Sequence[str]) -> Iterator[Row]:
    try:
        values = [_guarded(column, batch.column(column).to_pylist) for column in columns]
    except DataError:
        yield from _one_by_one(batch, classes, columns)
        return
    named = [_cells(value, classes.get(column)) for value, column in zip(values, columns, strict=True)]
    for row in zip(*named, strict=True):
        yield dict(zip(columns, row, strict=True)), None


def _one_by_one(batch: Any, classes: Mapping[str, Sequence[str]], columns: Sequence[str]) -> Iterator[Row]:
    """The rows of a batch with a cell that cannot be read, so that its record alone is lost."""
    for place in range(len(batch)):
        values: dict[str, Any] = {}
        problem = None
        for column in columns:
            try:
                (value,) = _guarded(f"column {column!r}", batch.column(column)[place : place + 1].to_pylist)
            except DataError as error:
                problem = str(error)
            else:
                (values[column],) = _cells([value], classes.get(column))
        yield values, problem


def _cells(values: list[Any], names: Sequence[str] | None) -> list[Any]:
    """Class numbers as class names, also in lists; -1, by which `datasets` marks a hidden label, as None."""
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
    """Call into `pyarrow` or `datasets`."""
    with reading(part):
        return function(*arguments)


@cache
def _quiet() -> None:
    # Its log repeats, with a traceback, what our message says in one line.
    from datasets import disable_progress_bars
    from datasets.utils import logging

    disable_progress_bars()
    logging.set_verbosity(logging.CRITICAL)


def parquet_files(name: str, files: Mapping[str, Path]) -> Tables:
    """Parquet files, by what messages call them; only the columns in use are read."""
    from pyarrow.parquet import read_metadata

    for file, path in files.items():
        _guarded(file, check_regular, path)
    rows = {file: _guarded(file, read_metadata, str(path)).num_rows for file, path in files.items()}
    return Tables(name, {file: partial(_parquet, str(path)) for file, path in files.items()}, rows)


def _parquet(file: str, columns: Sequence[str], rows: range | None) -> Table:
    # By pyarrow: the threads that `datasets` starts to stream Parquet can abort the process as it exits
    # (apache/arrow#45214, huggingface/datasets#7566).
    from pyarrow.parquet import ParquetFile

    opened = ParquetFile(file, memory_map=True)
    schema = opened.schema_arrow
    batches = partial(opened.iter_batches, BATCH, columns=_present(schema, columns), use_threads=False)
    return Table(
        _columns(schema), _classes(schema, columns), batches() if rows is None else _rows_of(opened, rows, batches)
    )


def _rows_of(opened: Any, rows: range, read: Callable[..., Iterator[Any]]) -> Iterator[Any]:
    """The rows of a Parquet file at these places, of which only the groups that they are in are read."""
    groups = [opened.metadata.row_group(place).num_rows for place in range(opened.metadata.num_row_groups)]
    found, inside = _overlapping(groups, rows)
    return _sliced(read(row_groups=found), inside)


def _overlapping(groups: Sequence[int], rows: range) -> tuple[list[int], range]:
    """The groups of rows, given by their sizes, that the rows are in, and the rows' places within those groups."""
    ends = list(accumulate(groups))
    found = [
        place
        for place, (size, end) in enumerate(zip(groups, ends, strict=True))
        if max(end - size, rows.start) < min(end, rows.stop)
    ]
    before = ends[found[0]] - groups[found[0]] if found else 0
    return found, range(rows.start - before, rows.stop - before)


def _sliced(batches: Iterator[Any], rows: range) -> Iterator[Any]:
    """The rows at these places of the batches."""
    before = 0
    for batch in batches:
        start, stop = max(rows.start - before, 0), min(rows.stop - before, len(batch))
        if start < stop:
            yield batch.slice(start, stop - start)
        before += len(batch)
        if before >= rows.stop:
            return


_ARROW_FILE = b"ARROW1"
"""The first bytes of Arrow's file format; its stream format has none of its own."""

_STREAM_END = b"\xff\xff\xff\xff\x00\x00\x00\x00"
"""Without it a stream that was cut between two batches would read as a whole one."""


def arrow_files(name: str, files: Mapping[str, Path]) -> Tables:
    """Arrow files, in the file or the stream format, by what messages call them."""
    for file, path in files.items():
        _guarded(file, check_regular, path)
    return Tables(name, {file: partial(_arrow, str(path)) for file, path in files.items()})


def _arrow(file: str, columns: Sequence[str], rows: range | None) -> Table:
    from pyarrow import ipc, memory_map

    mapped = memory_map(file)
    if mapped.read(len(_ARROW_FILE)) == _ARROW_FILE:
        opened = ipc.open_file(mapped)
        found = (opened.get_batch(place) for place in range(opened.num_record_batches))
    else:
        mapped.seek(max(0, mapped.size() - len(_STREAM_END)))
        if mapped.read() != _STREAM_END:
            raise EOFError("it ends early, without the mark that ends a stream: was it written and copied whole?")
        mapped.seek(0)
        found = opened = ipc.open_stream(mapped)
    pieces = (batch.slice(start, BATCH) for batch in found for start in range(0, len(batch), BATCH))
    return Table(_columns(opened.schema), _classes(opened.schema, columns), pieces)


def _columns(schema: Any) -> list[tuple[str, bool]]:
    from pyarrow import types

    text = (types.is_string, types.is_large_string, types.is_string_view)
    return [(field.name, any(holds(field.type) for holds in text)) for field in schema]


def _present(schema: Any, columns: Sequence[str]) -> list[str]:
    return [column for column in columns if column in schema.names]


def _classes(schema: Any, columns: Sequence[str]) -> Mapping[str, Sequence[str]]:
    """The names that `datasets` has written beside the schema, for the columns in use alone."""
    from datasets import Features

    written = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = written.get("info", {}).get("features") or {}
    used = {column: features[column] for column in columns if column in features}
    return _names_in(Features.from_dict(used) if used else {})


def _names_in(features: Mapping[str, Any]) -> Mapping[str, Sequence[str]]:
    found = {column: _class_names(feature) for column, feature in features.items()}
    return {column: names for column, names in found.items() if names is not None}


def _table(dataset: Any, columns: Sequence[str], rows: range | None) -> Table:
    """A table of a `Dataset` or an `IterableDataset`; the features of one that declares none are those of its rows."""
    from datasets import Features

    if rows is not None:
        dataset = dataset.select(rows)
    features = dataset.features
    if features is None:
        first = next(iter(dataset.with_format("arrow").iter(batch_size=1)), None)
        features = {} if first is None else Features.from_arrow_schema(first.schema)
    used = [column for column in columns if column in features]
    described = [
        (name, getattr(feature, "dtype", None) in ("string", "large_string")) for name, feature in features.items()
    ]
    batches = iter(dataset.select_columns(used).with_format("arrow").iter(batch_size=BATCH)) if used else iter(())
    return Table(described, _names_in({column: features[column] for column in used}), batches)


def is_saved(folder: str) -> bool:
    """Whether the folder was written by `Dataset.save_to_disk`."""
    return any(_is_file(Path(folder, name)) for name in ("dataset_info.json", "dataset_dict.json"))


def _is_file(path: Path) -> bool:
    return os.path.isfile(path)  # noqa: PTH113 - it does not raise for a name that is too long


def saved_folder(folder: str) -> Tables:
    """A folder written by `Dataset.save_to_disk`, mapped into memory. Raises DataError if it has several splits."""
    if Path(folder, "dataset_dict.json").is_file():
        splits = _guarded(folder, _splits_of, folder)
        first = Path(folder, *splits[:1])
        raise DataError(f"{folder}: holds several splits ({', '.join(splits)}); name one: {first}")
    for file in Path(folder).iterdir():
        if not file.is_dir():
            _guarded(str(file), check_regular, file)
            check_fetched(str(file))
    saved = _guarded(folder, _load_saved, folder)
    return Tables(folder, {folder: partial(_table, saved)}, {folder: len(saved)})


def _splits_of(folder: str) -> list[str]:
    return [str(name) for name in json.loads(Path(folder, "dataset_dict.json").read_text(encoding="utf-8"))["splits"]]


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
