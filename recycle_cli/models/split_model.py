"""A model cut in two, as plain data: how a sample becomes inputs, inputs become rows, and rows become logits."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from recycle_cli.keys import Sample
from recycle_cli.models.preprocessor import Inputs, Prepared, Preprocessor
from recycle_cli.recipe import Recipe

Parameters = list[tuple[str, nn.Parameter]]
Buffers = list[tuple[str, Tensor]]


@dataclass(frozen=True)
class SplitModel:
    """Trunk and head of one model. B samples, L tokens, rows of `row_shape`.

    recipe           all that decides the rows
    cuts             canonical names, ascending
    blocks           how many blocks the model has
    row_shape        shape of one row, without the sample and token axes
    model            the whole module; the head trains in place, so that saving it saves the merged checkpoint
    preprocessor     samples -> inputs
    trunk            inputs -> {cut: rows (B, L, *row_shape) float32}, all cuts in one pass stopped at the deepest,
                     in eval and inference mode whatever the model's mode
    head             rows (B, L, *row_shape), lengths (B,) -> logits (B, labels), from the deepest cut
    head_from        cut -> the same function from another of the cuts
    full             inputs -> logits (B, labels) of the whole model, in the mode it is in
    per_row          whether there is an output for each row, (B, L, labels), and not one for each sample
    head_parameters  cut -> named parameters that only the head uses: the only ones that may train
    trunk_parameters cut -> named parameters that the trunk's rows depend on, shared ones included
    head_buffers     cut -> named buffers that training the head changes (statistics of BatchNorm)
    blocks_after     cut -> the blocks of the head; none where the model has no list of them
    freeze           cut -> None. The trunk takes no gradient and stays in eval, whatever `model.train()` says later
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
    head_buffers: Callable[[str], Buffers] = lambda cut: []
    blocks_after: Callable[[str], Sequence[nn.Module]] = lambda cut: ()
    per_row: bool = False

    @property
    def prepare(self) -> Callable[[Sequence[Sample]], list[Prepared]]:
        """The preprocessor's: samples to one Prepared each."""
        return self.preprocessor.prepare

    @property
    def collate(self) -> Callable[[Sequence[Prepared]], Inputs]:
        """The preprocessor's: Prepared to the inputs of a batch."""
        return self.preprocessor.collate
