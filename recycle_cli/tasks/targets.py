"""What the outputs of samples are compared with."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from recycle_cli.batches import Indices

IGNORED = -100
"""A target that no loss counts: a row without a label, and the padding behind a sample's rows."""


@dataclass(frozen=True)
class Targets:
    """A target for each of n samples; a task that needs more of a sample to score it extends this class.

    values   (n, ...): a class index, a number, ones and zeros; or (rows, ...) if each row has a target of its own
    offsets  for targets of rows: sample i owns values[offsets[i]:offsets[i + 1]]; None for a target a sample
    """

    values: npt.NDArray[Any]
    offsets: Indices | None = None

    def __len__(self) -> int:
        return len(self.values) if self.offsets is None else len(self.offsets) - 1

    def take(self, places: Indices) -> "Targets":
        """The targets of the samples at these places, in this order."""
        if self.offsets is None:
            return Targets(self.values[places])
        lengths = np.diff(self.offsets)[places]
        rows = [self.values[start : start + length] for start, length in zip(self.offsets[places], lengths, strict=True)]
        values = np.concatenate(rows) if rows else self.values[:0]
        return Targets(values, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))

    def tensor(self) -> torch.Tensor:
        """One target a sample (n, ...); targets of rows padded with IGNORED to (n, L, ...)."""
        values = torch.from_numpy(self.values)
        if self.offsets is None:
            return values
        each = torch.split(values, np.diff(self.offsets).tolist())
        return torch.nn.utils.rnn.pad_sequence(list(each), batch_first=True, padding_value=IGNORED)

    def tobytes(self) -> bytes:
        """Part of a digest: equal targets give equal bytes."""
        return self.values.tobytes() + (b"" if self.offsets is None else self.offsets.tobytes())
