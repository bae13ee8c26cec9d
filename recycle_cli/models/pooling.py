"""A trunk that pools: a vector of each state in place of its rows."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from recycle_cli.errors import DataError, UsageError
from recycle_cli.models.ladder.layout import is_channels_last
from recycle_cli.models.probe.network import pooled
from recycle_cli.models.split_model import SplitModel
from recycle_cli.settings.reading import POOLINGS

_OF_IMAGES = ("mean", "max")
"""The poolings of a map, whose places have no first and no last."""


USUAL_POOLINGS = {"text": ("mean", "cls", "max"), "image": ("mean", "max")}
"""What is read of each state, by modality, if nothing says otherwise."""


def pooling(split: SplitModel, poolings: Sequence[str]) -> SplitModel:
    """The same model with a trunk that pools the rows of a sample: at each cut (B, poolings, width), float32.

    Raises UsageError for poolings that its rows do not have.
    """
    named = tuple(name for name in POOLINGS if name in poolings)
    if split.recipe.modality == "image":
        check_of_images(named, split.row_shape)

    def trunk(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        lengths = rows_in(inputs)
        with torch.inference_mode():
            return {cut: pooled_rows(rows, lengths, named) for cut, rows in split.trunk(inputs).items()}

    return replace(split, recipe=split.recipe.pooled_by(named), trunk=trunk, poolings=named)


def check_of_images(poolings: Sequence[str], row_shape: Sequence[int]) -> None:
    """Raise UsageError for poolings that an image's row of this shape, a map or a list of patches, does not have."""
    allowed = (*_OF_IMAGES, "cls") if len(row_shape) == 2 else _OF_IMAGES
    if foreign := [name for name in poolings if name not in allowed]:
        raise UsageError(
            f"--pool {','.join(foreign)}: an image's map has no such place; take some of {', '.join(allowed)}"
        )


def rows_in(inputs: Mapping[str, Tensor]) -> Tensor | None:
    """The rows of each sample of a batch of inputs (B,); None for images, each of which is one row."""
    mask = inputs.get("attention_mask")
    return None if mask is None else mask.sum(dim=1)


def pooled_rows(rows: Tensor, lengths: Tensor | None, poolings: Sequence[str]) -> Tensor:
    """Rows (B, L, *shape) of samples of these lengths (B,) to one vector a pooling: (B, poolings, width), float32.

    A row that is a map or a list of patches is an image's only one, and is pooled over its places. Raises DataError if
    there are fewer rows than the samples have.
    """
    places = _places(rows[:, 0]) if rows.dim() > 3 else rows
    if rows.dim() > 3 or lengths is None:
        lengths = torch.full((len(places),), places.shape[1], device=rows.device)
    if places.shape[1] < int(lengths.max()):
        raise DataError(
            f"the trunk gave {places.shape[1]} rows for {int(lengths.max())} tokens; this model shortens its sequence "
            "and cannot be recycled"
        )
    return pooled(places.float(), lengths.to(rows.device), poolings)


def _places(images: Tensor) -> Tensor:
    """Maps (B, C, H, W) or (B, H, W, C), or lists of patches (B, places, C), to (B, places, C)."""
    if images.dim() == 4:
        maps = images if is_channels_last(tuple(images.shape[1:])) else images.permute(0, 2, 3, 1)
        return maps.flatten(1, 2)
    if images.dim() == 3:
        return images
    raise UsageError(f"--pool: a row of shape {tuple(images.shape[1:])} cannot be pooled; name other cuts")
