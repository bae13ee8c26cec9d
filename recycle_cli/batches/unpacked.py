"""Packed int4 rows to float32 on any device, to the bit the same."""

from functools import cache
from math import prod

import torch
from torch.nn import functional

from recycle_cli.recipe import GROUP, GROUP_BYTES
from recycle_cli.store.fourbit import GROUP_SCALES, PAIRS, unpack


def unpacked(rows: torch.Tensor, scales: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Packed rows (B, L, bytes) with scales (B, L) as float32 (B, L, *shape)."""
    if rows.device.type == "cpu":
        # NumPy looks two numbers up in a nanosecond, PyTorch's embedding takes ten.
        return torch.from_numpy(unpack(rows.numpy(), scales.numpy(), shape))
    return looked_up(rows, scales, shape)


def looked_up(rows: torch.Tensor, scales: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """As `unpack`, but by operations of PyTorch, so that rows can be unpacked on an accelerator."""
    pairs, group_scales = _tables(rows.device)
    groups = rows.shape[-1] // GROUP_BYTES
    codes, own = rows.split_with_sizes([groups * (GROUP // 2), groups], dim=-1)
    units = group_scales[own.int()] * scales[..., None]
    numbers = functional.embedding(codes.int(), pairs).reshape(*rows.shape[:2], groups, GROUP)
    numbers *= units[..., None]
    return numbers.flatten(-2)[..., : prod(shape)].reshape(*rows.shape[:2], *shape)


@cache
def _tables(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """The numbers of each byte of codes (256, 2), and of each byte of a group's scale (256,), clipped."""
    scales = torch.from_numpy(GROUP_SCALES)
    every = torch.cat([scales, scales[-1:].expand(256 - len(scales))])
    return torch.from_numpy(PAIRS).to(device), every.to(device)
