"""A preprocessor that threads share by taking turns."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import numpy.typing as npt

from recycle_cli.keys import Sample
from recycle_cli.models import Piece, Preprocessor, TextPreprocessor


@dataclass(frozen=True)
class Locked:
    """A preprocessor that one thread uses at a time: a fast tokenizer can be borrowed but once."""

    preprocessor: Preprocessor
    lock: threading.RLock = field(default_factory=threading.RLock)

    def tokens(self, samples: Sequence[Sample]) -> tuple[npt.NDArray[np.int64], list[bool]]:
        """The rows of each sample (n,), and whether its text is longer than the model takes."""
        with self.lock:
            lengths = self.preprocessor.lengths(self.preprocessor.prepare(samples))
            return lengths, self.cut_off(samples, lengths)

    def cut_off(self, samples: Sequence[Sample], lengths: npt.NDArray[np.int64]) -> list[bool]:
        """Whether the text of each sample, which has so many rows, is longer than the model takes."""
        found = [False] * len(samples)
        if self.preprocessor.modality != "text":
            return found
        inputs = cast(TextPreprocessor, self.preprocessor)
        full = np.flatnonzero(lengths >= inputs.max_length).tolist()
        if full:
            with self.lock:
                tokens = inputs.token_counts([samples[place] for place in full])
            for place, count in zip(full, tokens.tolist(), strict=True):
                found[place] = count > inputs.max_length
        return found

    def texts_of(self, ids: Sequence[Sequence[int]], *, skip_special: bool = True) -> list[str]:
        """The texts that lists of token ids stand for. Raises DataError for an id that is none."""
        inputs = cast(TextPreprocessor, self.preprocessor)
        with self.lock:
            return [inputs.text_of(own, skip_special=skip_special) for own in ids]

    def pieces(self, texts: Sequence[str], special: bool, most: int) -> list[list[Piece]] | None:
        """The tokens of each text, none cut off; None if there are more than `most`."""
        inputs = cast(TextPreprocessor, self.preprocessor)
        found: list[list[Piece]] = []
        with self.lock:
            for text in texts:
                found.append(inputs.pieces(text, special=special))
                most -= len(found[-1])
                if most < 0:
                    return None
        return found
