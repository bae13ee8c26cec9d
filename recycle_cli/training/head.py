"""The head as a module: from a batch to outputs. Nothing else of the model trains, and nothing else need be wrapped."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from recycle_cli.batches import INPUTS, RowSource, Sampler, Tensors, at_cut
from recycle_cli.models import SplitModel
from recycle_cli.models.outputs import Outputs


class Head(nn.Module):
    """The layers after a cut, over the rows or the inputs of a batch.

    cut      where its layers begin; of a head that reads rows of several cuts their names with commas between them
    reads    the cuts of the rows that it is given; INPUTS if it is given inputs, and runs the frozen trunk itself
    weights  named parameters that train; its only parameters, so that data-parallel training sends no others
    statistics  named buffers that training changes; those of the head's BatchNorm layers, unless they are given
    """

    def __init__(
        self,
        split: SplitModel,
        cut: str,
        reads: Sequence[str],
        weights: Mapping[str, nn.Parameter],
        statistics: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.split, self.cut, self.reads = split, cut, tuple(reads)
        self.weights = dict(weights)
        self.statistics = dict(split.head_buffers(cut) if statistics is None else statistics)
        self._trained = nn.ParameterList(weights.values())

    def settle(self, source: RowSource, sampler: Sampler) -> None:
        """Take from the training data what the head has to know of it before it trains: nothing."""

    def settle_as(self, other: "Head") -> None:
        """Take over what another head of the same cuts has settled from the same data: nothing."""

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All that training changes, the statistics of BatchNorm layers included: what a checkpoint must hold."""
        return {**self.weights, **self.statistics}

    def train(self, mode: bool = True) -> "Head":
        """Put the model into training mode; the frozen trunk stays in eval."""
        self.split.model.train(mode)
        return super().train(mode)

    def forward(self, batch: Tensors) -> Outputs:
        """Outputs of a batch of rows in float32, or of inputs."""
        if self.reads == INPUTS:
            values, lengths = self.split.full(batch), lengths_of(batch)
        else:
            own = at_cut(batch, self.cut)
            values, lengths = self.split.head_from(self.cut)(own["rows"], own["lengths"]), own["lengths"]
        return Outputs(values, lengths if self.split.per_row else None)


def lengths_of(batch: Tensors) -> Tensor | None:
    """The tokens of each text of a batch of inputs (B,); None for inputs that are not padded."""
    mask = batch.get("attention_mask")
    return None if mask is None else mask.sum(dim=1)
