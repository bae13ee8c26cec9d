"""Records that are a text or a pair of texts."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from recycle_cli.corpus.columns import Columns, choose_text, listing, resolve_common
from recycle_cli.corpus.records import BadRecord, Reader, Record, kind_of, sound
from recycle_cli.corpus.sources import find_reader
from recycle_cli.errors import DataError
from recycle_cli.keys import Sample
from recycle_cli.settings import FileSettings


class TextForm:
    """A text, or a pair of texts, which are one sample: the fields `text` and `text_pair`."""

    modality = "text"

    def reader(self, sources: Sequence[str], files: FileSettings) -> Reader:
        """The reader of files of records."""
        return find_reader(sources, files)

    def resolve(self, named: Columns, schema: Mapping[str, bool], corpus: str, *, labelled: bool) -> Columns:
        """Find the columns that are not named: the label is the only one of LABEL_COLUMNS, the id a column `id`, the
        text the only one of TEXT_COLUMNS, else a pair of PAIR_COLUMNS, else the only other column that holds text."""
        if named.image is not None:
            raise DataError(
                f"{corpus}: the model takes texts, so that --image-column has no meaning; use --text-column"
            )
        resolved, free = resolve_common(named, schema, corpus, labelled=labelled)
        if named.text is not None:
            return resolved
        text, pair = choose_text(schema, free, named.text_pair is None)
        if text is None:
            raise DataError(f"{corpus}: which column is the text? Name it with --text-column; {listing(schema)}")
        return replace(resolved, text=text, text_pair=pair or named.text_pair)

    def samples(self, record: Record, columns: Columns, identity: str) -> tuple[Sample, ...]:
        """One sample."""
        assert columns.text is not None
        fields: dict[str, str | bytes] = {"text": text_of(record.values, columns.text)}
        if columns.text_pair is not None:
            fields["text_pair"] = text_of(record.values, columns.text_pair)
        return (Sample(identity, fields),)

    def name(self, record: Record, columns: Columns) -> str | None:
        """A text has no name but its number."""
        return None


TEXT = TextForm()


def text_of(values: Mapping[str, Any], column: str) -> str:
    """The text in a column. Raises BadRecord for an empty one, and for anything else."""
    value = values.get(column)
    if value is None:
        raise BadRecord(f"no text in column {column!r}")
    if not isinstance(value, str):
        raise BadRecord(f"column {column!r} holds {kind_of(value)}, expected a text")
    if not value or value.isspace():
        raise BadRecord(f"the text in column {column!r} is empty")
    return sound(value, column)
