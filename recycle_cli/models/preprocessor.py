"""Turn samples into model-ready inputs: the same few methods for every modality."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from recycle_cli.keys import Sample
from recycle_cli.models.text.spans import Piece, Spans
from recycle_cli.models.text.windows import TextWindow

Prepared = Mapping[str, npt.NDArray[Any]]
"""One sample as the model takes it, one array an input: token ids, truncated and not padded, or an image's pixels."""

Inputs = dict[str, Tensor]
"""Prepared samples of a batch; samples of unequal length are padded on the right and have an attention mask."""


class Preprocessor(Protocol):
    """Turns samples of one modality into inputs. Equal digests give equal inputs."""

    @property
    def modality(self) -> str:
        """The kind of sample, as `text` or `image`; part of a store's recipe."""

    @property
    def digest(self) -> str:
        """xxh3_128, 32 hexadecimal digits, of everything that decides the inputs; part of a store's recipe."""

    @property
    def row_cost(self) -> int:
        """How many tokens of a batch's budget a row counts for: 1 for a token, many for an image."""

    def prepare(self, samples: Sequence[Sample]) -> list[Prepared]:
        """One Prepared a sample. Raises DataError for a sample that cannot be used."""

    def collate(self, prepared: Sequence[Prepared]) -> Inputs:
        """The inputs of a batch."""

    def lengths(self, prepared: Sequence[Prepared]) -> npt.NDArray[np.int64]:
        """Rows of each sample (n,): its tokens, or one for an image."""


class TextPreprocessor(Preprocessor, Protocol):
    """The preprocessor of a text model: a row is a token."""

    @property
    def max_length(self) -> int:
        """Tokens that are kept of a text."""

    def token_counts(self, samples: Sequence[Sample]) -> npt.NDArray[np.int64]:
        """The tokens that each sample would have if none were cut off (n,)."""

    def text_of(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """The text that token ids stand for. Raises DataError for an id that is none."""

    def pieces(self, text: str, *, special: bool) -> list[Piece]:
        """The tokens of a text, none cut off; with `special` those around it, too."""

    def spans(self, samples: Sequence[Sample]) -> list[Spans]:
        """The place of each row's piece in its text: for each sample an array (rows, 3), aligned with `prepare`.

        A row holds the field (0 `text`, 1 `text_pair`, -1 a special token, which lies nowhere: 0, 0) and the first and
        the last + 1 character of the piece in that field, without white space around it. Raises ModelError for a slow
        tokenizer, which does not know.
        """

    def windows(self, sample: Sample, stride: int | None) -> list[TextWindow]:
        """The windows of a sample that has more tokens than the model takes, or else the sample itself: parts of its
        text, or of the second text of a pair, that share at least `stride` tokens; None for 128, or a third of the
        most tokens if that is less.

        Raises DataError if the first text of a pair leaves no room, UsageError for a stride that no text has room for.
        """


OpenPreprocessor = Callable[[], Preprocessor]
"""Opens a model's preprocessor when it is first needed: most tasks read labels without it."""
