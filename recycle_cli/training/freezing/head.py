"""A head whose first layers freeze while it trains: its cut moves behind them."""

from collections.abc import Sequence

from torch import nn

from recycle_cli.batches import Tensors, each_rows
from recycle_cli.models.outputs import Outputs
from recycle_cli.training.freezing.layers import Layers
from recycle_cli.training.head import Head


class FreezingHead(Head):
    """The layers after a cut, of which more and more are frozen. `weights` are all that have trained at any time.

    begins  the cut before which nothing trains any more: rows that it is given are of this cut
    """

    def __init__(self, layers: Layers, reads: Sequence[str]) -> None:
        start = layers.cuts[0]
        super().__init__(layers.split, start, reads, dict(layers.split.head_parameters(start)))
        self.layers, self.begins = layers, start

    def freeze(self, frozen: Sequence[int]) -> None:
        """Take layers out of training for good; the module then has only those as parameters that still train."""
        self.layers.freeze(frozen)
        self.begins = self.layers.cut_behind(frozen)
        self._trained = nn.ParameterList(one for one in self.weights.values() if one.requires_grad)

    def forward(self, batch: Tensors) -> Outputs:
        """Outputs of a batch of rows at the cut where it begins, in float32, or of inputs."""
        if not each_rows(batch):
            return super().forward(batch)
        values = self.split.head_from(self.begins)(batch["rows"], batch["lengths"])
        return Outputs(values, batch["lengths"] if self.split.per_row else None)
