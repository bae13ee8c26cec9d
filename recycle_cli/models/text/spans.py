"""The places of tokens in the text that they were made of, by the offsets of a fast tokenizer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from recycle_cli.keys import Sample

Spans = npt.NDArray[np.int64]
"""Field, first and last + 1 character of each token (rows, 3)."""


@dataclass(frozen=True)
class Piece:
    """A token of a text: its number and its name, whether it is a special one, and its first and last + 1 character,
    None for a special one and where a slow tokenizer does not know."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


_FIELDS = ("text", "text_pair")
"""The fields of a sample, by the tokenizer's numbers for them."""


def spans_of(encoded: Any, samples: Sequence[Sample]) -> list[Spans]:
    """Fields and offsets of each sample's tokens (rows, 3), from the answer of a tokenizer on the samples.

    White space at both ends of a piece is left out: byte-level tokenizers count the space before a word as its own,
    others do not.
    """
    offsets = encoded["offset_mapping"]
    return [_spans(sample, encoded.sequence_ids(row), offsets[row]) for row, sample in enumerate(samples)]


def _spans(sample: Sample, fields: Sequence[int | None], offsets: Sequence[tuple[int, int]]) -> Spans:
    spans = np.zeros((len(fields), 3), dtype=np.int64)
    spans[:, 0] = [-1 if field is None else field for field in fields]
    spans[:, 1:] = np.asarray(offsets, dtype=np.int64).reshape(-1, 2)
    for number, name in enumerate(_FIELDS):
        text = sample.fields.get(name)
        inside = spans[:, 0] == number
        if isinstance(text, str) and inside.any():
            blank = np.fromiter(map(str.isspace, text), dtype=bool, count=len(text))
            spans[inside, 1:] = _without_blanks(spans[inside, 1:], blank)
    spans[spans[:, 0] < 0, 1:] = 0
    return spans


def _without_blanks(spans: npt.NDArray[np.int64], blank: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Spans (rows, 2) moved in from both ends while they begin or end with a character that is `blank`."""
    blank = np.append(blank, False)
    first, last = spans[:, 0].copy(), spans[:, 1].copy()
    while (leading := (first < last) & blank[first]).any():
        first += leading
    while (trailing := (first < last) & blank[last - 1]).any():
        last -= trailing
    return np.stack((first, last), axis=1)
