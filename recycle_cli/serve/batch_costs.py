"""Decide which parts get a batch of their own: padding to the longest takes time, and so does another batch."""

from collections.abc import Iterator

import numpy as np

from recycle_cli.batches import Indices

_FORGET = 0.98
"""Weight that a batch keeps with each later one: speeds change with what else the machine does."""

_FEWEST = 8
"""Batches after which a line is drawn through them."""

_WORTH = 0.9
"""A batch is divided if that takes at most this share of its time, since the estimate is not exact."""


class BatchCosts:
    """Learns the seconds of a batch, a + b x padded tokens, by least squares over those computed, the latest most."""

    def __init__(self) -> None:
        self._count = 0
        self._sums = np.zeros(5)

    def note(self, tokens: int, seconds: float) -> None:
        """A batch of so many padded tokens took so long."""
        self._count += 1
        self._sums *= _FORGET
        self._sums += (1.0, tokens, seconds, tokens * tokens, tokens * seconds)

    @property
    def overhead(self) -> float:
        """Padded tokens that take as long as starting a batch; infinite if that is not known, so that none is split."""
        weight, tokens, seconds, squares, products = self._sums
        spread = weight * squares - tokens * tokens
        if self._count < _FEWEST or spread <= 1e-6 * squares * weight:
            return float("inf")
        each = (weight * products - tokens * seconds) / spread
        start = (seconds - each * tokens) / weight
        return float("inf") if each <= 0 else max(0.0, start / each)


def of_like_lengths(lengths: Indices, overhead: float) -> Iterator[slice]:
    """Divide lengths, sorted with the longest first, into the parts that cost least in padded tokens and `overhead`
    tokens a part. All of them are one part if dividing saves too little."""
    count = len(lengths)
    if not np.isfinite(overhead):
        yield slice(0, count)
        return
    least, first = np.zeros(count + 1), np.zeros(count + 1, np.int64)
    for end in range(1, count + 1):
        ending_here = least[:end] + overhead + (end - np.arange(end)) * lengths[:end]
        first[end] = ending_here.argmin()
        least[end] = ending_here[first[end]]
    if least[count] > _WORTH * (overhead + count * lengths[0]):
        yield slice(0, count)
        return
    end = count
    while end:
        yield slice(int(first[end]), end)
        end = int(first[end])
