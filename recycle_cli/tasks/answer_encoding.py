"""Answers as targets: the first and the last row of each in a window, and what scoring needs of the question."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from recycle_cli.batches import Indices
from recycle_cli.corpus import Answer, Example
from recycle_cli.errors import DataError
from recycle_cli.models import OpenPreprocessor, Spans
from recycle_cli.tasks.answer_spans import NULL, rows_of_answer
from recycle_cli.tasks.label_encoding import Encoded
from recycle_cli.tasks.targets import Targets
from recycle_cli.tasks.windows import spans_of


@dataclass(frozen=True)
class ContextWindow:
    """A window of a question's context: its text, the places of its rows, and the texts of the question's answers."""

    text: str
    spans: Spans
    answers: tuple[str, ...]


@dataclass(frozen=True)
class AnswerTargets(Targets):
    """The first and last row (n, 2) of a question's first answer in each of n windows; NULL, NULL if the window does
    not hold it whole.

    questions  the question (n,) of each window
    windows    the text, spans and answers by which each window is scored
    """

    questions: Indices | None = None
    windows: Sequence[ContextWindow] = ()

    def take(self, places: Indices) -> "AnswerTargets":
        """The targets of the windows at these places."""
        assert self.questions is not None
        windows = [self.windows[place] for place in places.tolist()]
        return replace(self, values=self.values[places], questions=self.questions[places], windows=windows)

    def tobytes(self) -> bytes:
        """Rows and answers."""
        answers = "\0".join("\1".join(window.answers) for window in self.windows)
        return super().tobytes() + answers.encode("utf-8", "surrogatepass")


class AnswerEncoder:
    """Encodes answers with their places in the whole context."""

    def __init__(self, preprocessor: OpenPreprocessor) -> None:
        self._preprocessor = preprocessor
        self._rows: list[tuple[int, int]] = []
        self._windows: list[ContextWindow] = []
        self._questions: list[int] = []
        self._known: list[bool] = []
        self._shared: dict[str, tuple[str, Spans]] = {}

    def add(self, example: Example, label: Any) -> None:
        """Add the rows of the first answer in each window of the example. Raises DataError for an answer that no token
        covers."""
        answers: tuple[Answer, ...] = label or ()
        (spans,) = spans_of([example], self._preprocessor)
        question = self._questions[-1] + 1 if self._questions else 0
        for sample, start, own in zip(example.samples, example.starts, spans, strict=True):
            text = str(sample.fields["text_pair"])
            self._rows.append(_rows_in(answers[:1], text, start, own, example))
            self._windows.append(ContextWindow(*self._kept(text, own), tuple(answer.text for answer in answers)))
            self._questions.append(question)
            self._known.append(label is not None)

    def finish(self) -> Encoded:
        """Targets of all windows; those of a question without a label mean nothing."""
        known = np.array(self._known, dtype=bool)
        values = np.array(self._rows, dtype=np.int64).reshape(-1, 2)
        targets = AnswerTargets(values, None, np.array(self._questions, dtype=np.int64), self._windows)
        return Encoded(targets, [], None if known.all() else known)

    def _kept(self, text: str, spans: Spans) -> tuple[str, Spans]:
        """The text and the spans, which all questions of one context share in memory."""
        kept = self._shared.setdefault(text, (text, spans))
        return kept if np.array_equal(kept[1], spans) else (kept[0], spans)


def _rows_in(answers: Sequence[Answer], text: str, start: int, spans: Spans, example: Example) -> tuple[int, int]:
    for answer in answers:
        assert answer.start is not None, "answers are placed when a record is read"
        first, last = answer.start - start, answer.start - start + len(answer.text)
        if first < 0 or last > len(text):
            continue
        rows = rows_of_answer(spans, first, last)
        if rows is None:
            raise DataError(
                f"{example.named}: the tokenizer makes no token of the answer {answer.text!r}, so it cannot be learnt; "
                "remove it"
            )
        return rows
    return NULL, NULL
