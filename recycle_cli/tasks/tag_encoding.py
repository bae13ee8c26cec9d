"""Tags of words to targets of rows."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from recycle_cli.batches import Indices
from recycle_cli.corpus import Example
from recycle_cli.models import OpenPreprocessor
from recycle_cli.tasks.alignment import NOWHERE, Aligned, aligned
from recycle_cli.tasks.contract import ordered
from recycle_cli.tasks.entities import taken_apart
from recycle_cli.tasks.label_encoding import Encoded, UnknownLabel
from recycle_cli.tasks.targets import IGNORED, Targets, offsets_of, take_ragged

AT_ONCE = 256
"""Examples that are tokenised in one call."""

TAGS_SHOWN = 20
"""Tags that a message lists at most."""


@dataclass(frozen=True)
class TagTargets(Targets):
    """The tags of rows, and of the words of n samples by which they are scored.

    words   the tag of each word (W,), sample i owning words[places[i]:places[i + 1]]
    heads   the row of each word's first piece (W,), in its sample; NOWHERE for a word without a piece
    begins  (n,) whether a sample is the first of its example
    names   the tags
    """

    words: Indices = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    heads: Indices = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    places: Indices = field(default_factory=lambda: np.zeros(1, dtype=np.int64))
    begins: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))
    names: tuple[str, ...] = ()

    def take(self, places: Indices) -> "TagTargets":
        """The targets of the samples at these places, in this order."""
        rows = super().take(places)
        words, offsets = take_ragged(self.words, self.places, places)
        heads, _ = take_ragged(self.heads, self.places, places)
        return TagTargets(rows.values, rows.offsets, words, heads, offsets, self.begins[places], self.names)

    def tobytes(self) -> bytes:
        """Part of a digest, the words without a piece included."""
        return super().tobytes() + self.words.tobytes() + self.heads.tobytes()


class TagEncoder:
    """Encodes tuples of tags, one a word. `names`: the known tags; None finds them. `every_piece`: the later pieces of
    a word have its tag too, inside (I) of the entity that it begins."""

    def __init__(self, names: Sequence[str] | None, preprocessor: OpenPreprocessor, *, every_piece: bool) -> None:
        self._names = None if names is None else list(names)
        self._preprocessor, self._every_piece = preprocessor, every_piece
        self._codes: dict[str, int] = {name: code for code, name in enumerate(names or ())}
        self._waiting: list[tuple[Example, Any]] = []
        self._done: list[_Sample] = []

    def add(self, example: Example, label: Any) -> None:
        """Add the tags of an example's words. Raises UnknownLabel for a tag that training has not seen."""
        for place, tag in enumerate(label or ()):
            if tag not in self._codes:
                self._check(tag, place, example)
                self._codes[tag] = len(self._codes)
        self._waiting.append((example, label))
        if len(self._waiting) == AT_ONCE:
            self._align()

    def finish(self) -> Encoded:
        """The targets of all samples, and the tags in their order: O first. Raises DataError for fewer than two."""
        self._align()
        names = self._names or sorted(ordered(self._codes, "tags"), key=lambda name: name != "O")
        order = np.array([names.index(name) for name in self._codes], dtype=np.int64)
        inner = np.array([_inside(name, names) for name in names], dtype=np.int64)
        rows = [own.rows(order, inner, every_piece=self._every_piece) for own in self._done]
        known = np.array([own.known for own in self._done], dtype=bool)
        targets = TagTargets(
            _joined(rows),
            offsets_of(rows),
            order[_joined(own.tags for own in self._done)],
            _joined(own.aligned.heads for own in self._done),
            offsets_of([own.tags for own in self._done]),
            np.array([own.begins for own in self._done], dtype=bool),
            tuple(names),
        )
        return Encoded(targets, names, None if known.all() else known)

    def _check(self, tag: str, place: int, example: Example) -> None:
        if self._names is None:
            return
        known = ", ".join(self._names[:TAGS_SHOWN]) + (", ..." if len(self._names) > TAGS_SHOWN else "")
        raise UnknownLabel(
            f"the tag {tag!r} is not one of the run's tags ({known})",
            f"{example.named}: the tag {tag!r} of word {place + 1} was not seen in training "
            f"(tags: {known}); correct it, or train on data that have it",
        )

    def _align(self) -> None:
        """Find the rows of the words of the examples that wait."""
        waiting, self._waiting = self._waiting, []
        found = aligned([example for example, _ in waiting], self._preprocessor) if waiting else []
        for (_, label), (_, samples) in zip(waiting, found, strict=True):
            tags = None if label is None else np.array([self._codes[tag] for tag in label], dtype=np.int64)
            self._done += [_Sample(own, tags, place == 0) for place, own in enumerate(samples)]


class _Sample:
    """The rows and words of a sample with the codes of their tags; a sample without a label has no words."""

    def __init__(self, own: Aligned, tags: Indices | None, begins: bool) -> None:
        self.known, self.begins = tags is not None, begins
        self.aligned = own if tags is not None else replace(own, words=own.words[:0], heads=own.heads[:0])
        self.tags = own.words[:0] if tags is None else tags[own.words]

    def rows(self, order: Indices, inner: Indices, *, every_piece: bool) -> Indices:
        """A target for each row. `order`: the tag of each code; `inner`: the tag that a later piece has, for each tag.
        Tags are their places among the names."""
        own = self.aligned
        found = np.full(len(own.rows), IGNORED, dtype=np.int64)
        if not len(own.words):
            return found
        names = order[self.tags]
        if every_piece:
            real = np.flatnonzero(own.rows != NOWHERE)
            found[real] = inner[names[np.searchsorted(own.words, own.rows[real])]]
        real = own.heads != NOWHERE
        # Two words may share a row, which is the first one's.
        found[own.heads[real][::-1]] = names[real][::-1]
        return found


def _inside(name: str, names: Sequence[str]) -> int:
    """The tag of a word's later pieces: I-X for B-X, if there is one, else its own."""
    prefix, kind = taken_apart(name)
    inner = f"I-{kind}" if prefix == "B" else name
    return names.index(inner if inner in names else name)


def _joined(parts: Iterable[Indices]) -> Indices:
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts])
