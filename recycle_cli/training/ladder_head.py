"""A ladder as a head: from rows of several cuts to outputs, without anything of the model."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from recycle_cli.batches import INPUTS, Tensors, at_cut
from recycle_cli.models import SplitModel
from recycle_cli.models.ladder import Ladder, Layout
from recycle_cli.models.outputs import Outputs
from recycle_cli.models.state_network import LADDER
from recycle_cli.training.head import lengths_of
from recycle_cli.training.states_head import StatesHead


class LadderHead(StatesHead):
    """A ladder over the rows at its cuts, or over the inputs of a batch, which the frozen trunk makes rows of.

    layout    how the rows become the states that it reads
    measured  a million numbers a channel and more
    """

    kept, measured = LADDER, 1024
    network: Ladder

    def __init__(self, split: SplitModel, cut: str, reads: Sequence[str], ladder: Ladder, layout: Layout) -> None:
        super().__init__(split, cut, reads, ladder)
        self.layout = layout

    @property
    def row_shapes(self) -> list[list[int]]:
        """The shape of a row at each cut."""
        return [list(shape) for shape in self.layout.shapes]

    def forward(self, batch: Tensors) -> Outputs:
        """Outputs of a batch of rows in float32, or of inputs."""
        states, lengths = self.given(batch)
        values: Tensor = self.network(states, lengths)
        return Outputs(values, lengths if self.network.shape.per_row else None)

    def given(self, batch: Tensors) -> tuple[list[Tensor], Tensor]:
        """The states (B, L, width) of a batch, and their lengths (B,)."""
        if self.reads != INPUTS:
            return self.layout.states([at_cut(batch, cut)["rows"] for cut in self.cuts], batch["lengths"])
        rows = self.split.trunk(batch)
        lengths = lengths_of(batch)
        if lengths is None:
            first = rows[self.cuts[0]]
            lengths = torch.ones(len(first), dtype=torch.int64, device=first.device)
        # Copies, since the trunk computes in inference mode, whose tensors no gradient can be taken through.
        return self.layout.states([rows[cut].to(torch.float32, copy=True) for cut in self.cuts], lengths)

    def standardised(self, *given: Any) -> Tensor:
        """The rows (S, n, width) of all samples, without the padding."""
        states, lengths = given
        inside = torch.arange(states[0].shape[1], device=lengths.device) < lengths[:, None]
        return torch.stack([own[inside] for own in states])
