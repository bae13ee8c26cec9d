"""Windows of a text that is longer than a model takes: parts that share some tokens, cut between words."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from recycle_cli.errors import DataError
from recycle_cli.keys import Sample
from recycle_cli.models.text.spans import Spans

Measure = Callable[[Sample], Spans]
"""A sample to the spans of all its tokens, however many there are."""


@dataclass(frozen=True)
class TextWindow:
    """A window as a sample of its own, the place of its first character in the whole text, and its rows' places."""

    sample: Sample
    start: int
    spans: Spans = field(compare=False)


def windows_of(sample: Sample, measure: Measure, most: int, stride: int) -> list[TextWindow]:
    """The windows of a sample's text, or of the second text of a pair beside the whole first one.

    No window has more than `most` tokens, specials and the first text included. Each shares at least `stride` tokens
    with the next, and begins and ends at white space if there is any to be had. A sample that is short enough is its
    only window, as it is.

    Raises DataError if the first text leaves no room for windows that get on.
    """
    spans = measure(sample)
    if len(spans) <= most:
        return [TextWindow(sample, 0, spans)]
    name = "text_pair" if "text_pair" in sample.fields else "text"
    text = sample.fields[name]
    assert isinstance(text, str)
    own = spans[spans[:, 0] == (name == "text_pair")][:, 1:]
    room = most - (len(spans) - len(own))
    if room <= stride:
        raise DataError(_no_room(name, len(spans) - len(own), most, stride))
    cut = _Cut(sample, name, text, own)
    return list(_windows(cut, measure, most, room, stride))


def _no_room(name: str, beside: int, most: int, stride: int) -> str:
    taken = "the first text and the special tokens take" if name == "text_pair" else "the special tokens take"
    return (
        f"{taken} {beside:,} of the {most:,} tokens of --max-length, which leaves {max(0, most - beside):,} for a "
        f"window of the text, expected more than the {stride:,} that windows share (--stride); give a larger "
        "--max-length, a smaller --stride" + (", or a shorter first text" if name == "text_pair" else "")
    )


@dataclass(frozen=True)
class _Cut:
    """A text with its tokens (n, 2), from which windows are taken by numbers of tokens."""

    sample: Sample
    name: str
    text: str
    own: Spans

    def breaks(self) -> npt.NDArray[np.int64]:
        """The tokens before which there is white space."""
        ends = np.maximum.accumulate(self.own[:, 1])
        gaps = zip(ends[:-1].tolist(), self.own[1:, 0].tolist(), strict=True)
        spaces = [any(map(str.isspace, self.text[end:first])) for end, first in gaps]
        return np.flatnonzero([False, *spaces])

    def window(self, first: int, end: int) -> tuple[Sample, int]:
        """The window of the tokens from `first` to `end`, and where it begins; without text if these are all white
        space."""
        spans = self.own[first:end]
        spans = spans[spans[:, 0] < spans[:, 1]]
        start, stop = (int(spans[:, 0].min()), int(spans[:, 1].max())) if len(spans) else (0, 0)
        fields: Mapping[str, str | bytes] = {**self.sample.fields, self.name: self.text[start:stop]}
        return replace(self.sample, fields=fields), start


def _windows(cut: _Cut, measure: Measure, most: int, room: int, stride: int) -> Iterator[TextWindow]:
    breaks, tokens, first = cut.breaks(), len(cut.own), 0
    while True:
        end, limit = first, room
        while True:
            end = _last_break(breaks, first + stride, first + limit, tokens)
            sample, start = cut.window(first, end)
            # A part of a text need not have the tokens that the part has in the whole.
            spans = measure(sample)
            over = len(spans) - most
            if over <= 0:
                break
            limit = min(limit, end - first) - over
            if limit <= stride:
                raise DataError(f"a window of its text has {over + most:,} tokens by itself, expected {most:,} at most")
        if sample.fields[cut.name]:
            yield TextWindow(sample, start, spans)
        if end == tokens:
            return
        first = _next_first(breaks, first, end, stride)


def _last_break(breaks: npt.NDArray[np.int64], least: int, most: int, tokens: int) -> int:
    """Where a window ends: as late as it may, before white space if there is any behind `least`."""
    if most >= tokens:
        return tokens
    fitting = breaks[(breaks > least) & (breaks <= most)]
    return int(fitting[-1]) if len(fitting) else most


def _next_first(breaks: npt.NDArray[np.int64], first: int, end: int, stride: int) -> int:
    """Where the next window begins: `stride` tokens before the end, or earlier at white space if there is any."""
    earlier = breaks[(breaks > first) & (breaks <= end - stride)]
    return int(earlier[-1]) if len(earlier) else end - stride
