"""Targets: the values that the outputs of samples are compared with."""

from collections.abc import Sequence
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
        return Targets(*take_ragged(self.values, self.offsets, places))

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


def take_ragged(values: npt.NDArray[Any], offsets: Indices, places: Indices) -> tuple[npt.NDArray[Any], Indices]:
    """The parts of ragged values at these places, in this order, and their own offsets."""
    parts = [values[offsets[place] : offsets[place + 1]] for place in places.tolist()]
    return np.concatenate([*parts, values[:0]]), offsets_of(parts)


def offsets_of(parts: Sequence[npt.NDArray[Any]]) -> Indices:
    """Where each part begins and the last one ends, if they lie one after the other: (parts + 1,)."""
    return np.cumsum([0, *map(len, parts)], dtype=np.int64)
