"""Questions of files in SQuAD's own layout: articles of paragraphs, each a context with its questions."""

import json
from collections.abc import Generator, Iterator, Sequence
from itertools import chain
from typing import Any

from recycle_cli.corpus.lines import json_lines
from recycle_cli.corpus.records import Record
from recycle_cli.errors import DataError


def squad_or_lines(lines: Iterator[str], file: str, columns: Sequence[str]) -> Generator[Record]:
    """A record a question of a file in the layout of SQuAD 1.1 or 2.0; other files are JSON lines.

    A question has the columns `question`, `context`, `answers`, `id`, `title`, and what else it holds. Raises DataError
    for a file that has the layout in part.
    """
    content, lines = _whole(lines)
    if not isinstance(content, dict) or not isinstance(content.get("data"), list):
        yield from json_lines(lines, file, columns)
        return
    for number, (values, problem) in enumerate(_questions(content, file), start=1):
        yield Record(file, number, values, problem, unit="question")


def _whole(lines: Iterator[str]) -> tuple[Any, Iterator[str]]:
    """The value of lines that are a single JSON value, else None; and the lines again."""
    begun = list(_until_text(lines))
    if not begun or not begun[-1].lstrip().startswith("{"):
        return None, chain(begun, lines)
    try:
        content = json.loads(begun[-1])
    except (ValueError, RecursionError):
        content = None  # the first line of several that are one value
    if content is not None and not (isinstance(content, dict) and "data" in content):
        return None, chain(begun, lines)
    begun += lines
    try:
        return json.loads("".join(begun)), iter(begun)
    except (ValueError, RecursionError):
        return None, iter(begun)


def _until_text(lines: Iterator[str]) -> Iterator[str]:
    """The lines up to the first that is not blank."""
    for line in lines:
        yield line
        if not line.isspace():
            return


def _questions(content: Any, file: str) -> Iterator[tuple[dict[str, Any], str | None]]:
    """The questions, and what is wrong with each."""
    for article in _listed(content, "data", file):
        for paragraph in _listed(article, "paragraphs", file):
            for question in _listed(paragraph, "qas", file):
                yield _question(article, paragraph, question)


def _listed(holder: Any, key: str, file: str) -> list[Any]:
    found = holder.get(key) if isinstance(holder, dict) else None
    if not isinstance(found, list):
        raise DataError(f"{file}: no list {key!r} where SQuAD's layout has one (data, paragraphs, qas)")
    return found


def _question(article: Any, paragraph: Any, question: Any) -> tuple[dict[str, Any], str | None]:
    if not isinstance(question, dict):
        return {}, "a question is no JSON object"
    values = {"title": article.get("title"), "context": paragraph.get("context"), **question}
    if question.get("is_impossible") is True:
        if question.get("answers"):
            return values, "it has is_impossible true and answers as well; remove one of the two"
        values["answers"] = []
    return values, None
