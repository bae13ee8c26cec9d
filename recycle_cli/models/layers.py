"""A cut of a model with the work it saves and the bytes it costs to store: a line of `recycle layers`."""

from collections.abc import Sequence
from dataclasses import dataclass

from recycle_cli.recipe import row_bytes


@dataclass(frozen=True)
class Layer:
    """One cut. Shares are of the whole model, from 0 to 1; `bytes_per_sample` is for a text of the length asked for.

    `pooled_bytes`: of one sample's vectors there, with the usual poolings of a store of pooled vectors; None for a
    modality whose rows are not pooled.
    """

    cut: str
    share: float
    flops_share: float
    parameter_share: float
    row_shape: tuple[int, ...]
    bytes_per_sample: int
    pooled_bytes: int | None = None


def pooled_bytes(width: int, poolings: Sequence[str], dtype: str) -> int:
    """Bytes that a store keeps of one sample's pooled vectors of a state, with their scales."""
    return len(poolings) * row_bytes((width,), dtype)


def bytes_per_sample(row_shape: Sequence[int], length: int, dtype: str) -> int:
    """Bytes that a store keeps of one sample's rows, with their scales."""
    return row_bytes(row_shape, dtype) * length
