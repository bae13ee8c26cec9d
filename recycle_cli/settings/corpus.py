"""The options of a corpus: where records come from, and what their columns hold."""

from dataclasses import dataclass
from typing import Literal

from recycle_cli.settings.option import option
from recycle_cli.settings.shards import Shard

LABEL_SEPARATOR = "|"
"""Stands between the names of several labels in one text column, both when read and when written; alone, it means that
the record has none of the classes."""


@dataclass(frozen=True)
class FileSettings:
    """How files of records are read. `format` None: as their endings say."""

    format: Literal["csv", "tsv", "jsonl", "txt", "parquet", "arrow", "conll", "conllu"] | None = option(
        None, "Kind of the files of records; by default as their names end, or jsonl for stdin (-).", "Data"
    )
    quoting: Literal["standard", "none"] = option(
        "standard",
        "In CSV and TSV, quotation marks enclose a cell (standard) or are marks like any other (none).",
        "Data",
    )


@dataclass(frozen=True)
class CorpusSettings:
    """Where the records come from, and what their columns hold. A column that is not named is found if it is obvious.

    label_columns  the columns of several labels, in place of `label_column`; a record may lack some of them
    kept           the further columns that `--keep-columns` writes beside the predictions
    trained        (role, column) of each column that a RUN was trained on; taken unless the user names another
    shard          the part of the records to read; None for all
    """

    source: tuple[str, ...]
    text_column: str | None = option(None, "Column of the text; needed only if it is not obvious.", "Data", usual=True)
    text_pair_column: str | None = option(None, "Column of the second text of a pair.", "Data")
    label_column: str | None = option(
        None, "Column of the label; needed only if it is not obvious.", "Data", usual=True, per_head=True
    )
    id_column: str | None = option(
        None, "Column of the record's id; by default the path of an image, or else the record's number from 0.", "Data"
    )
    limit: int | None = option(None, "Read only this many records, from the first on.", "Data", minimum=1)
    on_error: Literal["fail", "skip"] = option(
        "fail", "Stop at a record that cannot be used (fail), or leave it out and go on (skip).", "Data"
    )
    failures: str | None = option(
        None,
        "List the records that --on-error skip leaves out in this file, as JSON lines.",
        "Data",
        repeated=False,
    )
    image_column: str | None = option(
        None,
        "Column of the image, as bytes or as a file's path; needed only if it is not obvious.",
        "Data",
    )
    label_columns: tuple[str, ...] = ()
    files: FileSettings = FileSettings()
    trained: tuple[tuple[str, str], ...] = ()
    kept: tuple[str, ...] = ()
    shard: Shard | None = None
