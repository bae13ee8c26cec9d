"""A model cut in two, as plain data: how a sample becomes inputs, inputs become rows, and rows become outputs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from recycle_cli.errors import UsageError
from recycle_cli.keys import Sample
from recycle_cli.models.preprocessor import Inputs, Prepared, Preprocessor
from recycle_cli.recipe import Recipe

Parameters = list[tuple[str, nn.Parameter]]
Buffers = list[tuple[str, Tensor]]


def _only_to_the_end(cut: str, later: str) -> Callable[[Tensor, Tensor], Tensor]:
    raise UsageError(f"this model cannot take rows from cut {cut} to cut {later}")


def _only_all_together(cut: str) -> Callable[[Mapping[str, Tensor]], Tensor]:
    raise UsageError(f"this model cannot give the rows at cut {cut} alone")


@dataclass(frozen=True)
class SplitModel:
    """Trunk and head of one model. B samples, L rows (tokens) of the longest, rows of `row_shape`.

    Outputs are (B, labels), or (B, L, labels) if `per_row`: start and end logits of question answering are two labels.
    The values of a per-row output at padding are unspecified, and the halves' may differ from the whole's there.

    recipe           everything that decides the rows
    cuts             canonical names, ascending
    blocks           how many blocks the model has
    row_shape        shape of one row, without the sample and row axes
    model            the whole module; the head trains in place, so that saving it saves the merged checkpoint
    preprocessor     samples -> inputs
    trunk            inputs -> {cut: rows (B, L, *row_shape) float32}, all cuts in one pass stopped at the deepest,
                     in eval and inference mode whatever the model's mode
    trunk_to         cut -> a function from inputs to the rows at this cut alone, in the same mode
    head             rows (B, L, *row_shape), lengths (B,) -> outputs, from the deepest cut
    head_from        cut -> the same function from another of the cuts
    full             inputs -> outputs of the whole model, in the mode it is in; what is frozen stays in eval
    head_parameters  cut -> named parameters that only the head uses: the only ones that may train
    trunk_parameters cut -> named parameters that the trunk's rows depend on, shared ones included
    freeze           cut -> None. The trunk takes no gradient and stays in eval, whatever `model.train()` says later
    between          (cut, later cut) -> a function from rows, lengths to rows (B, L, *row_shape) at the later cut, in
                     eval and inference mode. Raises UsageError for a cut that the model was not split at, and if the
                     second is not the later one
    head_buffers     cut -> named buffers that training the head changes (statistics of BatchNorm)
    blocks_after     cut -> the blocks of the head; none if the model has no list of them
    poolings         how the trunk pools the rows of a sample, each pooling being a row of its own; none: not at all
    per_row          whether there is an output for each row, and not one for each sample
    """

    recipe: Recipe
    cuts: tuple[str, ...]
    blocks: int
    row_shape: tuple[int, ...]
    model: nn.Module
    preprocessor: Preprocessor
    trunk: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
    head: Callable[[Tensor, Tensor], Tensor]
    head_from: Callable[[str], Callable[[Tensor, Tensor], Tensor]]
    full: Callable[[Mapping[str, Tensor]], Tensor]
    head_parameters: Callable[[str], Parameters]
    trunk_parameters: Callable[[str], Parameters]
    freeze: Callable[[str], None]
    trunk_to: Callable[[str], Callable[[Mapping[str, Tensor]], Tensor]] = _only_all_together
    between: Callable[[str, str], Callable[[Tensor, Tensor], Tensor]] = _only_to_the_end
    head_buffers: Callable[[str], Buffers] = lambda cut: []
    blocks_after: Callable[[str], Sequence[nn.Module]] = lambda cut: ()
    per_row: bool = False
    poolings: tuple[str, ...] = ()

    def stored_lengths(self, lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The rows (n,) that the trunk gives for samples of these lengths (n,)."""
        return np.full_like(lengths, len(self.poolings)) if self.poolings else lengths

    @property
    def prepare(self) -> Callable[[Sequence[Sample]], list[Prepared]]:
        """The function that turns samples into one Prepared each: the preprocessor's."""
        return self.preprocessor.prepare

    @property
    def collate(self) -> Callable[[Sequence[Prepared]], Inputs]:
        """The function that makes the inputs of a batch: the preprocessor's."""
        return self.preprocessor.collate
