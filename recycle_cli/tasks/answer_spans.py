"""From logits of first and last tokens to answers: the best place in each window, and the best of an example's."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from recycle_cli.models import Spans

Floats = npt.NDArray[np.float64]

NULL = 0
"""The row whose place as first and last token says that a window has no answer: [CLS] in models that have it."""

CONTEXT = 1
"""The field of the context."""


class Found(NamedTuple):
    """The best answer in a window: its probability, its first and last + 1 character in the window's text, and the
    probability that there is none."""

    score: float
    first: int
    last: int
    none: float


def best_span(logits: npt.NDArray[np.float32], spans: Spans, most: int) -> Found:
    """The most probable answer of at most `most` rows in a window: logits (rows, 2) of first and last, spans (rows, 3).

    First and last row have a softmax each, over the context's rows and the NULL row; the probability of an answer is
    the product of the two, as in the question-answering pipeline of transformers.
    """
    inside = np.flatnonzero(spans[:, 0] == CONTEXT)
    chosen = np.concatenate([[NULL], inside])
    starts, ends = (_softmax(logits[chosen, side].astype(np.float64)) for side in (0, 1))
    none = float(starts[0] * ends[0])
    if not len(inside):
        return Found(0.0, 0, 0, none)
    after = np.concatenate([ends[1:], np.zeros(most - 1)])
    each = starts[1:, None] * np.lib.stride_tricks.sliding_window_view(after, most)
    first, length = np.unravel_index(int(each.argmax()), each.shape)
    begin, end = int(inside[first]), int(inside[first + length])
    return Found(float(each[first, length]), int(spans[begin, 1]), int(spans[end, 2]), none)


def rows_of_answer(spans: Spans, first: int, last: int) -> tuple[int, int] | None:
    """The first and the last row that cover characters `first` to `last` of the context; None if no row does."""
    touching = np.flatnonzero((spans[:, 0] == CONTEXT) & (spans[:, 1] < last) & (spans[:, 2] > first))
    return (int(touching[0]), int(touching[-1])) if len(touching) else None


class Chosen(NamedTuple):
    """The answer to a question: its window among the example's, what was found there, and the probability of none."""

    window: int
    found: Found
    none: float


def best_window(windows: Sequence[Found]) -> Chosen:
    """The window with the most probable answer. `none` is the least probability of no answer over the windows."""
    window = max(range(len(windows)), key=lambda place: windows[place].score)
    return Chosen(window, windows[window], min(found.none for found in windows))


def _softmax(logits: Floats) -> Floats:
    shares: Floats = np.exp(logits - logits.max())
    return shares / shares.sum()
