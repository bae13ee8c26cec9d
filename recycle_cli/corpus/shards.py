"""The records of one shard: those that its part of the files holds, or, where a file can't be sought, dealt out."""

from collections.abc import Generator, Sequence
from contextlib import closing
from typing import Protocol, runtime_checkable

from recycle_cli.corpus.records import Reader, Record
from recycle_cli.settings import Shard

DEALT = 16
"""Neighbouring records that one shard gets together where records are dealt out: they may share a document."""


@runtime_checkable
class Sought(Protocol):
    """A reader that finds a shard's records without reading the others."""

    def shard(self, shard: Shard, columns: Sequence[str]) -> Generator[Record] | None:
        """The shard's records; None if these files have to be read from the start."""


def records_of(reader: Reader, shard: Shard | None, columns: Sequence[str]) -> Generator[Record]:
    """The records of a shard, or all. Every record is in exactly one shard."""
    found = None
    if shard is not None and isinstance(reader, Sought):
        found = reader.shard(shard, columns)
    if shard is None or found is not None:
        yield from found if found is not None else reader.records(columns)
        return
    with closing(reader.records(columns)) as records:
        for place, record in enumerate(records):
            if is_dealt(place, shard):
                yield record


def is_dealt(place: int, shard: Shard) -> bool:
    """Whether the record at this place is the shard's, where records are dealt out."""
    return place // DEALT % shard.of == shard.index
