"""Align the words of a text with the rows of their pieces, by characters."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recycle_cli.batches import Indices
from recycle_cli.corpus import Example
from recycle_cli.models import OpenPreprocessor, Spans
from recycle_cli.tasks.windows import spans_of

NOWHERE = -1
"""The row of a word that has none, and the word of a row that is no word's."""


@dataclass(frozen=True)
class Words:
    """The words of a text: word i is `text[first[i]:end[i]]`; `first` and `end` (W,)."""

    text: str
    first: Indices
    end: Indices

    @classmethod
    def of(cls, text: str) -> "Words":
        """Split a text at its single spaces."""
        lengths = np.array([len(word) for word in text.split(" ")], dtype=np.int64)
        end = np.cumsum(lengths + 1) - 1
        return cls(text, end - lengths, end)


@dataclass(frozen=True)
class Aligned:
    """The words that one sample answers for, and its rows.

    words  their numbers in the example's text (w,), ascending
    heads  the row of each one's first piece (w,), NOWHERE for a word that has no piece
    rows   the word in which each row's piece begins (rows,), NOWHERE for special tokens and the words of other windows
    """

    words: Indices
    heads: Indices
    rows: Indices


def aligned(examples: Sequence[Example], preprocessor: OpenPreprocessor) -> list[tuple[Words, list[Aligned]]]:
    """The words of each example, and for each of its samples the words that it answers for.

    A word that lies in several windows belongs to the one in which it is farthest from the edges.
    """
    return [_of_example(*one) for one in zip(examples, spans_of(examples, preprocessor), strict=True)]


def _of_example(example: Example, spans: Sequence[Spans]) -> tuple[Words, list[Aligned]]:
    words = Words.of(str((example.whole or example.sample).fields["text"]))
    if len(spans) == 1:
        return words, [_of_sample(words, np.arange(len(words.first)), spans[0], 0)]
    starts = np.array(example.starts, dtype=np.int64)
    ends = starts + np.array([len(str(sample.fields["text"])) for sample in example.samples], dtype=np.int64)
    owners = _owners(words, starts, ends)
    return words, [
        _of_sample(words, np.flatnonzero(owners == place), own, int(start))
        for place, (own, start) in enumerate(zip(spans, starts, strict=True))
    ]


def _owners(words: Words, starts: Indices, ends: Indices) -> Indices:
    """The window (W,) that answers for each word, in ascending order."""
    before = words.first - starts[:, None]
    behind = ends[:, None] - words.end
    inside = (before >= 0) & (behind >= 0)
    # Nothing is hidden behind the ends of the text, so they are no edges.
    before[starts == 0] = len(words.text)
    behind[ends == ends.max()] = len(words.text)
    room = np.where(inside, np.minimum(before, behind), NOWHERE)
    # A word that is too long for any window belongs to the one in which it begins.
    begun = (words.first >= starts[:, None]) & (words.first < ends[:, None]) & ~inside.any(axis=0)
    return np.where(begun, 0, room).argmax(axis=0)


def _of_sample(words: Words, own: Indices, spans: Spans, start: int) -> Aligned:
    """Align the words `own` with the rows of a sample whose text begins at the character `start`."""
    first, end = spans[:, 1] + start, spans[:, 2] + start
    real = np.flatnonzero((spans[:, 0] == 0) & (first < end))
    rows = np.full(len(spans), NOWHERE, dtype=np.int64)
    heads = np.full(len(own), NOWHERE, dtype=np.int64)
    if len(real) and len(own):
        answered = np.zeros(len(words.first) + 1, dtype=bool)
        answered[own] = True
        found = np.searchsorted(words.first, first[real], "right") - 1
        rows[real] = np.where(answered[found], found, NOWHERE)
        # A piece may reach into the next word, which takes that row if it has no piece of its own.
        reach = np.maximum.accumulate(end[real])
        at = np.minimum(np.searchsorted(reach, words.first[own], "right"), len(real) - 1)
        touches = (reach[at] > words.first[own]) & (first[real][at] < words.end[own])
        begins = np.minimum(np.searchsorted(first[real], words.first[own]), len(real) - 1)
        begun = (first[real][begins] >= words.first[own]) & (first[real][begins] < words.end[own])
        heads = np.where(begun, real[begins], np.where(touches, real[at], NOWHERE))
    return Aligned(own, heads, rows)
