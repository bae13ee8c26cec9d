"""Count a corpus in one pass and bounded memory: records, unique contents, tokens, and a uniform sample of contents.

Keys are hashes, as good as random numbers. So the contents with the smallest keys are a uniform sample without
repetition, however often the corpus repeats them (bottom-k sampling; Cohen and Kaplan 2007). The number of unique
contents is estimated by halving the range of keys that are kept whenever there are too many of them (adaptive
sampling; Flajolet 1990).
"""

import heapq
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from recycle_cli.keys import Sample
from recycle_cli.trunk import windows

Numbers = npt.NDArray[np.float64]

READ_WINDOW = 8192
KEPT = 2**18
"""Contents whose size is kept. The number of unique contents is exact up to here, and known to 0.2% beyond."""

DRAWN = 4096
"""Default number of contents that are tokenised."""

_KEY_BITS = 128


@dataclass
class Census:
    """Counts of a corpus; each sample of a record counts as one of `records`. `sizes` has the characters of the kept
    contents, one in 2**`halvings` of the unique ones, by key. At most `most` contents are drawn, kept whole."""

    records: int = 0
    halvings: int = 0
    sizes: dict[int, int] = field(default_factory=dict)
    drawn: list[tuple[int, Sample]] = field(default_factory=list)
    most: int = field(default_factory=lambda: DRAWN)

    @property
    def unique(self) -> int:
        """The number of unique contents, which is an estimate if `halvings` is not 0."""
        return len(self.sizes) << self.halvings

    @property
    def samples(self) -> list[Sample]:
        """The drawn contents in the order of their keys, which is a random order."""
        return [sample for _, sample in sorted(self.drawn, key=lambda pair: -pair[0])]

    def add(self, key: int, sample: Sample) -> None:
        """Count one record."""
        self.records += 1
        if key >> (_KEY_BITS - self.halvings) or key in self.sizes:
            return
        self.sizes[key] = characters(sample)
        if len(self.sizes) > KEPT:
            self.halvings += 1
            self.sizes = {kept: size for kept, size in self.sizes.items() if not kept >> (_KEY_BITS - self.halvings)}
        if len(self.drawn) < self.most:
            heapq.heappush(self.drawn, (-key, sample))
        elif -key > self.drawn[0][0]:
            heapq.heapreplace(self.drawn, (-key, sample))


@dataclass(frozen=True)
class Tokens:
    """Tokens of all unique contents, with the standard error as a share of the total; 0 if all were counted."""

    total: float
    error_share: float


def characters(sample: Sample) -> int:
    """Length of a sample's content, in characters (or bytes)."""
    return sum(len(content) for content in sample.fields.values())


def count(samples: Iterable[Sample], told: Callable[[int], None], most: int | None = None) -> Census:
    """Read a corpus once and count it; `told` is called with the number of records of each window.

    `most` is the number of contents to draw, by default DRAWN.
    """
    census = Census(most=most or DRAWN)
    for window in windows(samples, READ_WINDOW):
        for key, sample in zip(window.keys, window.samples, strict=True):
            census.add(int.from_bytes(key.tobytes(), "big"), sample)
        told(len(window.samples))
    return census


def tokens_of(census: Census, lengths: npt.NDArray[np.int64], longest: int) -> Tokens:
    """Estimate the tokens of the corpus from those of the drawn samples (n,), by characters.

    A line from characters to tokens, cut off at the longest text, predicts the tokens of each content. The drawn
    contents tell how far that is off on average (difference estimator; Cochran 1977, section 7.9).
    """
    if len(lengths) == census.unique:
        return Tokens(float(lengths.sum()), 0.0)
    line = _line([characters(sample) for sample in census.samples], lengths, longest)
    expected = line(np.fromiter(census.sizes.values(), dtype=np.float64))
    rest = lengths - line(np.array([characters(sample) for sample in census.samples], dtype=np.float64))
    total = census.unique * (float(expected.mean()) + float(rest.mean()))
    error = census.unique * float(rest.std(ddof=1)) / math.sqrt(len(lengths))
    error *= math.sqrt(1 - len(lengths) / census.unique)
    counting = math.sqrt(1 + float(expected.var()) / float(expected.mean()) ** 2) / math.sqrt(len(census.sizes))
    return Tokens(total, math.hypot(error / total, counting if census.halvings else 0.0))


def rows_of_images(census: Census) -> Tokens:
    """Count one row for each unique image. If there were too many to keep, their number is an estimate."""
    return Tokens(float(census.unique), 1 / math.sqrt(len(census.sizes)) if census.halvings else 0.0)


def _line(sizes: Sequence[int], lengths: npt.NDArray[np.int64], longest: int) -> Callable[[Numbers], Numbers]:
    """Fit tokens by characters to the texts that were not truncated."""
    whole = lengths < longest
    if np.unique(np.asarray(sizes)[whole]).size < 2:
        return lambda characters: np.full(len(characters), float(lengths.mean()))
    slope, start = np.polyfit(np.asarray(sizes, dtype=np.float64)[whole], lengths[whole], 1)
    return lambda characters: np.clip(start + slope * characters, 1.0, float(longest))
