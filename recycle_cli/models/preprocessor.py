"""Samples to model-ready inputs: what every modality answers, whatever its samples are."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from recycle_cli.keys import Sample

Prepared = Mapping[str, npt.NDArray[Any]]
"""One sample as the model takes it, one array an input: token ids, truncated and not padded, or an image's pixels."""

Inputs = dict[str, Tensor]
"""Prepared samples of a batch; those of unequal length are padded on the right and have an attention mask."""


class Preprocessor(Protocol):
    """Turns samples of one modality into inputs. Equal digests give equal inputs."""

    @property
    def modality(self) -> str:
        """What a sample is: `text`, `image`; part of a store's recipe."""

    @property
    def digest(self) -> str:
        """xxh3_128, 32 hexadecimal digits, of all that decides the inputs; part of a store's recipe."""

    @property
    def row_cost(self) -> int:
        """What a row counts for in a batch's budget of tokens: one for a token, many for an image."""

    def prepare(self, samples: Sequence[Sample]) -> list[Prepared]:
        """One Prepared a sample. Raises DataError for a sample that cannot be used."""

    def collate(self, prepared: Sequence[Prepared]) -> Inputs:
        """The inputs of a batch."""

    def lengths(self, prepared: Sequence[Prepared]) -> npt.NDArray[np.int64]:
        """Rows of each sample (n,): its tokens, or one for an image."""


OpenPreprocessor = Callable[[], Preprocessor]
"""Opens a model's preprocessor when it is first needed: most tasks read labels without it."""
