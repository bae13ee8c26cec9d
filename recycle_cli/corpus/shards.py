"""The records of one shard of a corpus: a run of them, or every so many where a reader cannot find such a run."""

from collections.abc import Generator, Sequence
from contextlib import closing
from typing import Protocol, runtime_checkable

from recycle_cli.corpus.records import Reader, Record
from recycle_cli.settings import Shard

DEALT = 16
"""Neighbouring records that go to one shard together if records are dealt out: they may share a document."""


@runtime_checkable
class ShardReader(Protocol):
    """A reader that can find a shard's records without reading those of the others."""

    def shard(self, shard: Shard, columns: Sequence[str]) -> Generator[Record] | None:
        """The shard's records, as `Reader.records` gives them; None if these files have to be read from the start."""


def records_of(reader: Reader, shard: Shard | None, columns: Sequence[str]) -> Generator[Record]:
    """The records of a shard, or all of them without one. Every record is in exactly one shard."""
    if shard is None:
        return reader.records(columns)
    found = reader.shard(shard, columns) if isinstance(reader, ShardReader) else None
    return _dealt(reader, shard, columns) if found is None else found


def finds_shards(reader: Reader, of: int) -> bool:
    """Whether the reader can find each of so many shards without reading the others."""
    if not isinstance(reader, ShardReader):
        return False
    found = reader.shard(Shard(0, of), ())
    if found is not None:
        found.close()
    return found is not None


def _dealt(reader: Reader, shard: Shard, columns: Sequence[str]) -> Generator[Record]:
    """The shard's records of a reader that reads everything: shards take turns, `DEALT` records each."""
    with closing(reader.records(columns)) as records:
        for place, record in enumerate(records):
            if place // DEALT % shard.of == shard.index:
                yield record
