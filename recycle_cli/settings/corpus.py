"""Where records come from, and which of their columns hold what."""

from dataclasses import dataclass
from typing import Literal

LABEL_SEPARATOR = "|"
"""Stands between the names of several labels in one text column, both when read and when written; alone, it means that
the record has none of the classes."""


@dataclass(frozen=True)
class CorpusSettings:
    """Where the records come from and which columns hold what. Unnamed columns are found if the choice is obvious.

    `label_columns`: the columns of several targets, in place of `label_column`; a record may lack some of them.
    """

    source: tuple[str, ...]
    text_column: str | None = None
    text_pair_column: str | None = None
    label_column: str | None = None
    id_column: str | None = None
    limit: int | None = None
    on_error: Literal["fail", "skip"] = "fail"
    failures: str | None = None
    image_column: str | None = None
    label_columns: tuple[str, ...] = ()
