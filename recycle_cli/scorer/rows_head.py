"""The rows at a cut in place of what a head makes of them."""

from recycle_cli.batches import INPUTS, Tensors, at_cut
from recycle_cli.models.outputs import Outputs
from recycle_cli.training.head import Head, lengths_of


class RowsHead(Head):
    """Gives the rows of its cut, those that it reads or those of the trunk."""

    def forward(self, batch: Tensors) -> Outputs:
        """A batch of rows or of inputs to its rows (B, L, width)."""
        if self.reads == INPUTS:
            return Outputs(self.split.trunk_to(self.cut)(batch), lengths_of(batch))
        own = at_cut(batch, self.cut)
        return Outputs(own["rows"].float(), own["lengths"])
