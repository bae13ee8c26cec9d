"""Texts to vectors by an encoder alone: its rows are pooled, and one layer makes the outputs of them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def mean(rows: Tensor, mask: Tensor) -> Tensor:
    """The mean over a text's tokens."""
    return (rows * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)


def largest(rows: Tensor, mask: Tensor) -> Tensor:
    """The largest of each number over a text's tokens."""
    return rows.masked_fill(~mask[..., None].bool(), -torch.inf).amax(dim=1)


def first(rows: Tensor, mask: Tensor) -> Tensor:
    """The first token's."""
    return rows[:, 0]


def last(rows: Tensor, mask: Tensor) -> Tensor:
    """The last token's."""
    return rows[torch.arange(len(rows), device=rows.device), mask.sum(dim=1) - 1]


POOLINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean": mean,
    "max": largest,
    "cls": first,
    "lasttoken": last,
}
"""Token rows (B, L, width) and their mask (B, L) to vectors (B, width), by the names of sentence-transformers."""


class Pooled(nn.Module):
    """An encoder, a pooling over its tokens and a layer: token ids to a vector a text, in a tuple as the models of
    transformers return their outputs."""

    def __init__(self, encoder: Any, pooling: str, layer: nn.Module) -> None:
        super().__init__()
        self.encoder, self.pooling, self.layer = encoder, pooling, layer

    @property
    def config(self) -> Any:
        """The encoder's."""
        return self.encoder.config

    @property
    def base_model(self) -> Any:
        """The encoder, by whose names a trunk's weights are known whatever the task."""
        return self.encoder

    def get_input_embeddings(self) -> nn.Module:
        """The encoder's table of words."""
        table: nn.Module = self.encoder.get_input_embeddings()
        return table

    def forward(self, **inputs: Any) -> tuple[Tensor]:
        """The encoder's inputs to the layer's vectors (B, size)."""
        rows = self.encoder(**inputs)[0]
        return (self.layer(POOLINGS[self.pooling](rows, inputs["attention_mask"])),)
