"""What a model gives for some samples: one vector each, or one for each of their rows."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Outputs:
    """`values` (B, width) with `lengths` None; or (B, L, width) with `lengths` (B,), the rows of each sample.

    Values behind a sample's rows mean nothing.
    """

    values: Tensor
    lengths: Tensor | None = None

    def __len__(self) -> int:
        return len(self.values)

    def each(self) -> list[Tensor]:
        """The outputs of each sample: (width,), or (rows, width) without padding."""
        if self.lengths is None:
            return list(self.values)
        return [own[:length] for own, length in zip(self.values, self.lengths.tolist(), strict=True)]

    def take(self, places: Tensor) -> "Outputs":
        """The outputs of some of the samples."""
        return Outputs(self.values[places], None if self.lengths is None else self.lengths[places])

    def cpu(self) -> "Outputs":
        """In float32 on the CPU."""
        return Outputs(self.values.float().cpu(), None if self.lengths is None else self.lengths.cpu())

    @classmethod
    def of(cls, each: Sequence[Tensor]) -> "Outputs":
        """From the outputs of each sample: (width,) or (rows, width)."""
        if each[0].dim() == 1:
            return cls(torch.stack(list(each)))
        lengths = torch.tensor([len(own) for own in each])
        return cls(torch.nn.utils.rnn.pad_sequence(list(each), batch_first=True), lengths)
