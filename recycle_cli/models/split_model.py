"""A model cut in two, as plain data: how a sample becomes inputs, inputs become rows, and rows become logits."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from recycle_cli.keys import Sample
from recycle_cli.recipe import Recipe

Prepared = dict[str, npt.NDArray[Any]]
"""One sample as the model takes it: one array an input; token ids truncated and not padded, or an image's pixels."""

Batch = dict[str, Tensor]
"""Prepared samples of unequal length, padded on the right, with their attention mask."""

Parameters = list[tuple[str, nn.Parameter]]
Buffers = list[tuple[str, Tensor]]

IMAGE_COST = 128
"""Tokens that an image counts for where a batch is limited by tokens: 8,192 tokens are 64 images."""


@dataclass(frozen=True)
class SplitModel:
    """Trunk and head of one model. B samples, L tokens, rows of `row_shape`.

    recipe           all that decides the rows
    cuts             canonical names, ascending
    blocks           how many blocks the model has
    row_shape        shape of one row, without the sample and token axes
    model            the whole module; the head trains in place, so that saving it saves the merged checkpoint
    prepare          samples -> one Prepared each. Raises DataError for a text that gives no token
    collate          Prepared -> padded Batch
    trunk            Batch -> {cut: rows (B, L, *row_shape) float32}, all cuts in one pass stopped at the deepest,
                     in eval and inference mode whatever the model's mode
    head             rows (B, L, *row_shape), lengths (B,) -> logits (B, labels), from the deepest cut
    head_from        cut -> the same function from another of the cuts
    full             Batch -> logits (B, labels) of the whole model, in the mode it is in
    head_parameters  cut -> named parameters that only the head uses: the only ones that may train
    trunk_parameters cut -> named parameters that the trunk's rows depend on, shared ones included
    head_buffers     cut -> named buffers that training the head changes (statistics of BatchNorm)
    batch_cost       what a row counts for in a batch's budget of tokens: one, or IMAGE_COST for an image
    blocks_after     cut -> the blocks of the head; none where the model has no list of them
    freeze           cut -> None. The trunk takes no gradient and stays in eval, whatever `model.train()` says later
    """

    recipe: Recipe
    cuts: tuple[str, ...]
    blocks: int
    row_shape: tuple[int, ...]
    model: nn.Module
    prepare: Callable[[Sequence[Sample]], list[Prepared]]
    collate: Callable[[Sequence[Prepared]], Batch]
    trunk: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
    head: Callable[[Tensor, Tensor], Tensor]
    head_from: Callable[[str], Callable[[Tensor, Tensor], Tensor]]
    full: Callable[[Mapping[str, Tensor]], Tensor]
    head_parameters: Callable[[str], Parameters]
    trunk_parameters: Callable[[str], Parameters]
    freeze: Callable[[str], None]
    head_buffers: Callable[[str], Buffers] = lambda cut: []
    batch_cost: int = 1
    blocks_after: Callable[[str], Sequence[nn.Module]] = lambda cut: ()


def lengths_of(prepared: Iterable[Prepared]) -> npt.NDArray[np.int64]:
    """Rows of each sample, int64 (n,): its tokens, or one for an image."""
    rows = (len(inputs["input_ids"]) if "input_ids" in inputs else 1 for inputs in prepared)
    return np.fromiter(rows, dtype=np.int64)
