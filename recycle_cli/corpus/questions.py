"""Records that are a question, its context, and its answers, which are places in the context."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from recycle_cli.corpus.columns import Columns, listing, only, resolve_common
from recycle_cli.corpus.lines import LineKind
from recycle_cli.corpus.records import BadRecord, Reader, kind_of, shown, sound
from recycle_cli.corpus.sources import LINES, find_reader
from recycle_cli.corpus.squad import squad_or_lines
from recycle_cli.corpus.texts import TextForm
from recycle_cli.errors import DataError
from recycle_cli.settings import FileSettings

QUESTIONS = ("question", "query")
CONTEXTS = ("context", "passage", "paragraph", "document", "text")
ANSWERS = ("answers", "answer")

SHOWN_CHARACTERS = 60
"""Characters of an answer that a message shows."""


@dataclass(frozen=True)
class Answer:
    """A place in a context: its text, and the first character; None if only the text is known."""

    text: str
    start: int | None = None


class QuestionForm(TextForm):
    """A question and its context, which are one sample: the fields `text` and `text_pair`."""

    def reader(self, sources: Sequence[str], files: FileSettings) -> Reader:
        """The reader of files in SQuAD's layout, or of any records."""
        return find_reader(sources, files, {**LINES, ".json": LineKind(squad_or_lines)})

    def resolve(self, named: Columns, schema: Mapping[str, bool], corpus: str, *, labelled: bool) -> Columns:
        """Find the columns that are not named: the question as text, the context as its pair, the answers as label."""
        if named.label is None and not named.labels:
            named = replace(named, label=only(ANSWERS, list(schema)))
        if named.label is None and not named.labels and labelled:
            raise DataError(f"{corpus}: which column holds the answers? Name it with --label-column; {listing(schema)}")
        resolved, free = resolve_common(named, schema, corpus, labelled=labelled)
        question = resolved.text or only(QUESTIONS, free)
        context = resolved.text_pair or next((name for name in CONTEXTS if name in free and name != question), None)
        for what, column, option in (
            ("question", question, "--text-column"),
            ("context", context, "--text-pair-column"),
        ):
            if column is None:
                raise DataError(f"{corpus}: which column is the {what}? Name it with {option}; {listing(schema)}")
        return replace(resolved, text=question, text_pair=context)


QUESTION = QuestionForm()


def read_answers(values: Mapping[str, Any], column: str) -> tuple[Answer, ...]:
    """The answers in a column; none for a question that has no answer, which is written [].

    The column may hold a text, a list of texts, SQuAD's list of objects (text, answer_start), an object with the lists
    text and answer_start, as `datasets` has them, or the JSON of one of these as text. Raises BadRecord for anything
    else.
    """
    value = values.get(column)
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            value = json.loads(value)
        except ValueError:
            value = values[column]
    if value is None or (isinstance(value, str) and not value.strip()):
        raise BadRecord(f"no answers in column {column!r}; a question without an answer is written []")
    if isinstance(value, dict):
        return tuple(_from_columns(value, column))
    return tuple(_answer(one, column) for one in (value if isinstance(value, list) else [value]))


def placed(answers: Sequence[Answer], context: str) -> tuple[Answer, ...]:
    """The answers with their places in the context; an answer without a place gets the first place of its text.

    Raises BadRecord for an answer that is not there.
    """
    found = []
    for answer in answers:
        start = context.find(answer.text) if answer.start is None else answer.start
        if start < 0 or context[start : start + len(answer.text)] != answer.text:
            raise BadRecord(_not_there(answer, context))
        found.append(Answer(answer.text, start))
    return tuple(found)


def _not_there(answer: Answer, context: str) -> str:
    named = repr(shown(answer.text if len(answer.text) <= SHOWN_CHARACTERS else f"{answer.text[:SHOWN_CHARACTERS]}..."))
    if answer.start is None or answer.text not in context:
        return f"the context does not contain the answer {named}; an answer is a part of it, letter by letter"
    there = context[max(0, answer.start) : max(0, answer.start) + min(len(answer.text), SHOWN_CHARACTERS)]
    return (
        f"the answer {named} does not begin at answer_start {answer.start}, where the context has {shown(there)!r}; "
        f"its first place is {context.find(answer.text)}, counted in characters from 0"
    )


def _from_columns(value: Mapping[str, Any], column: str) -> list[Answer]:
    texts, starts = value.get("text"), value.get("answer_start")
    if isinstance(texts, str):
        return [_answer(value, column)]
    if not isinstance(texts, list) or not isinstance(starts, list | None) or len(starts or texts) != len(texts):
        raise BadRecord(
            f"column {column!r} holds an object without the lists 'text' and 'answer_start' of equal length"
        )
    return [
        _answer({"text": text, "answer_start": start}, column)
        for text, start in zip(texts, starts or [None] * len(texts), strict=True)
    ]


def _answer(value: Any, column: str) -> Answer:
    if isinstance(value, str):
        value = {"text": value}
    if not isinstance(value, dict):
        raise BadRecord(f"column {column!r} holds {kind_of(value)} among the answers, expected texts or objects")
    text, start = value.get("text"), value.get("answer_start")
    if not isinstance(text, str) or not text.strip():
        raise BadRecord(f"column {column!r} holds an answer without text; a question without an answer is written []")
    if isinstance(start, bool) or not isinstance(start, int | None):
        raise BadRecord(f"column {column!r} holds answer_start {start!r}, expected a whole number of characters")
    return Answer(sound(text, column), start)
