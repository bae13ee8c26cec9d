"""The form of a record: the columns that it has, and the samples that they give."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from recycle_cli.corpus.columns import Columns
from recycle_cli.corpus.records import Reader, Record
from recycle_cli.keys import Sample
from recycle_cli.settings import FileSettings


class Form(Protocol):
    """One kind of record, such as a text, a pair of texts, or an image."""

    @property
    def modality(self) -> str:
        """The modality of its samples: `text`, `image`."""

    def reader(self, sources: Sequence[str], files: FileSettings) -> Reader:
        """The reader of these files, folders or names; `files` say how files are read.

        Raises DataError if there is nothing of this form to read.
        """

    def resolve(self, named: Columns, schema: Mapping[str, bool], corpus: str, *, labelled: bool) -> Columns:
        """Fill in the columns that the user did not name. `schema` tells for each column whether it holds text.

        Raises DataError, listing the columns, if a named column is missing or more than one choice is left.
        """

    def samples(self, record: Record, columns: Columns, identity: str) -> tuple[Sample, ...]:
        """The samples of a record; `identity` is their id. Raises BadRecord."""

    def name(self, record: Record, columns: Columns) -> str | None:
        """The name of a record without an id, such as the path of an image; None for its number."""
