"""Records that are words with a tag each; their text is the words with a space between them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from recycle_cli.corpus.columns import Columns, choose_text, listing, only, resolve_common
from recycle_cli.corpus.conll import conll, conllu
from recycle_cli.corpus.labels import has_label
from recycle_cli.corpus.lines import LineKind
from recycle_cli.corpus.records import BadRecord, Reader, Record, kind_of, sound
from recycle_cli.corpus.sources import LINES, find_reader
from recycle_cli.errors import DataError
from recycle_cli.keys import Sample
from recycle_cli.settings import FileSettings

WORD_COLUMNS = ("tokens", "words")
TAG_COLUMNS, TAGS_OR_LABEL_COLUMNS = ("tags", "ner_tags"), ("labels", "label")
"""Names of the column of tags. One of the second names holds the label of the whole text if there is a column of the
first names beside it."""

CONLL: Mapping[str, LineKind] = {
    ".conll": LineKind(conll),
    ".conllu": LineKind(conllu),
    ".bio": LineKind(conll),
    ".iob": LineKind(conll),
    ".iob2": LineKind(conll),
    ".txt": LineKind(conll),
}
"""The endings of CoNLL files. A .txt file of words is one too, though elsewhere it has a text a line."""

NO_BREAK = "\u00a0"
"""Replaces a space inside a word, so that the words of a text can be found by its spaces."""


class WordsForm:
    """Words, and perhaps a tag for each: one sample, whose field `text` has a single space between any two words."""

    modality = "text"

    def reader(self, sources: Sequence[str], files: FileSettings) -> Reader:
        """The reader of files of records, or of CoNLL files."""
        return find_reader(sources, files, {**LINES, **CONLL})

    def resolve(self, named: Columns, schema: Mapping[str, bool], corpus: str, *, labelled: bool) -> Columns:
        """Find the columns that are not named: words in one of WORD_COLUMNS, tags in one of TAG_COLUMNS, else of
        TAGS_OR_LABEL_COLUMNS. In a CoNLL file the words are the first column, and the tags the last of several. Without
        any of these, the words are the text of a plain record."""
        if named.image is not None or named.text_pair is not None:
            option = "--image-column" if named.image is not None else "--text-pair-column"
            raise DataError(f"{corpus}: {option} has no meaning for words with tags; use --text-column")
        free = [name for name in schema if name not in named.named]
        tags = named.label or only(TAG_COLUMNS, free) or only(TAGS_OR_LABEL_COLUMNS, free) or _last_number(schema)
        if tags is None and labelled and not named.labels:
            raise DataError(f"{corpus}: which column holds the tags? Name it with --label-column; {listing(schema)}")
        resolved, free = resolve_common(
            replace(named, label=None if named.labels else tags), schema, corpus, labelled=False
        )
        if named.label is None and tags is None:
            resolved = replace(resolved, label=None)
        if named.text is not None:
            return resolved
        words = only(WORD_COLUMNS, free) or ("1" if "1" in free else choose_text(schema, free, False)[0])
        if words is None:
            raise DataError(f"{corpus}: which column holds the words? Name it with --text-column; {listing(schema)}")
        return replace(resolved, text=words)

    def samples(self, record: Record, columns: Columns, identity: str) -> tuple[Sample, ...]:
        """One sample. Raises BadRecord if there are no words, or not as many as tags."""
        assert columns.text is not None
        words = words_in(record.values, columns.text)
        for column in filter(None, (columns.label, *columns.labels)):
            tags = _parts(record.values[column]) if has_label(record.values, column) else None
            if isinstance(tags, list) and len(tags) != len(words):
                raise BadRecord(
                    f"{len(words)} words in column {columns.text!r}, and {len(tags)} tags in column {column!r}"
                )
        return (Sample(identity, {"text": " ".join(words)}),)

    def name(self, record: Record, columns: Columns) -> str | None:
        """A sentence has no name but its number."""
        return None


WORDS_WITH_TAGS = WordsForm()


def _last_number(schema: Mapping[str, bool]) -> str | None:
    """The last column of a CoNLL file of several; None for other records."""
    numbers = [str(place) for place in range(1, len(schema) + 1) if str(place) in schema]
    return numbers[-1] if {"1", "2"} <= set(numbers) else None


def words_in(values: Mapping[str, Any], column: str) -> list[str]:
    """The words in a column: a list, or a text with white space between them. Raises BadRecord for anything else."""
    found = _parts(values.get(column))
    if not isinstance(found, list):
        raise BadRecord(f"column {column!r} holds {kind_of(found)}, expected a list of words or a text")
    if not found:
        raise BadRecord(f"no words in column {column!r}")
    for place, word in enumerate(found, start=1):
        if not isinstance(word, str):
            raise BadRecord(f"word {place} in column {column!r} is {kind_of(word)}, expected a text")
        if not word or word.isspace():
            raise BadRecord(f"word {place} in column {column!r} is empty")
    return [sound(word, column).replace(" ", NO_BREAK) for word in found]


def _parts(value: Any) -> Any:
    """A text as what its white space separates; other values as they are."""
    return value.split() if isinstance(value, str) else value


@dataclass(frozen=True)
class ReadTags:
    """Reads the tags of words, a list or a text with white space between them, as a tuple of names.

    names  the names of tags that are numbers, from 0; each tag must then be one of them, or the number of one
    """

    names: tuple[str, ...] = ()

    def __call__(self, values: Mapping[str, Any], column: str) -> tuple[str, ...]:
        """The tags. Raises BadRecord for anything else."""
        if not has_label(values, column):
            raise BadRecord(f"no tags in column {column!r}")
        found = _parts(values[column])
        if not isinstance(found, list):
            raise BadRecord(f"column {column!r} holds {kind_of(found)}, expected a list of tags or a text")
        return tuple(self._name(tag, place, column) for place, tag in enumerate(found, start=1))

    def _name(self, tag: Any, place: int, column: str) -> str:
        if isinstance(tag, str) and tag and not tag.isspace():
            name = sound(tag, column)
        elif isinstance(tag, int | float) and not isinstance(tag, bool) and tag >= 0 and float(tag).is_integer():
            name = str(int(tag))
        else:
            what = "empty" if isinstance(tag, str) else f"{kind_of(tag)} ({tag})"
            raise BadRecord(f"tag {place} in column {column!r} is {what}, expected a name or a number from 0")
        if not self.names or name in self.names:
            return name
        if name.isdecimal() and int(name) < len(self.names):
            return self.names[int(name)]
        raise BadRecord(
            f"tag {place} in column {column!r} is {name!r}, which is none of the {len(self.names)} --tag-names"
        )
