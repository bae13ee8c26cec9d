"""BatchNorm over a batch that is divided among ranks: with the statistics of the whole batch, as in one process."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812 - the name everybody knows it by
from torch import Tensor
from torch.overrides import TorchFunctionMode


class _Summed(torch.autograd.Function):
    """The sum of the tensors of all ranks; the gradient of each is that of the sum, to which every rank adds its own.

    PyTorch has had it in several places, each deprecated in favour of the next.
    """

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        return _sum_over_ranks(own)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _sum_over_ranks(gradient)


def _sum_over_ranks(own: Tensor) -> Tensor:
    whole = own.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(whole)
    return whole


class WholeBatchNorm(TorchFunctionMode):
    """Inside the block every BatchNorm in training mode, of whatever class of module, takes the mean and the variance
    of the samples of all ranks. PyTorch's SyncBatchNorm does the same on CUDA devices alone."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _NAMES:
            given = _Given(**dict(zip(_NAMES[func], args, strict=False)), **kwargs)
            if given.training:
                return _normalised(given)
        return func(*args, **kwargs)


class _Given(NamedTuple):
    """What a BatchNorm is called with; x (n, channels, ...), the others (channels,)."""

    input: Tensor
    running_mean: Tensor | None
    running_var: Tensor | None
    weight: Tensor | None = None
    bias: Tensor | None = None
    training: bool = False
    momentum: float = 0.1
    eps: float = 1e-5
    cudnn_enabled: bool = True


_NAMES = {
    F.batch_norm: _Given._fields[:-1],
    torch.batch_norm: ("input", "weight", "bias", "running_mean", "running_var", *_Given._fields[5:]),
}
"""The two functions that modules call, with the names of their arguments in their order."""


def _normalised(given: _Given) -> Tensor:
    """(x - mean) / sqrt(variance + eps) * weight + bias for each channel of x, over all ranks."""
    rows = given.input.float()
    others = [one for one in range(rows.dim()) if one != 1]
    shape = [1, -1, *[1] * (rows.dim() - 2)]
    own = rows.numel() // rows.shape[1]
    sums = _Summed.apply(torch.cat([rows.sum(others), rows.new_tensor([own])]))
    count = sums[-1].detach()
    mean = sums[:-1] / count
    centred = rows - mean.view(shape)
    variance = _Summed.apply(centred.square().sum(others)) / count
    if given.running_mean is not None and given.running_var is not None:
        with torch.no_grad():
            given.running_mean.lerp_(mean.to(given.running_mean.dtype), given.momentum)
            given.running_var.lerp_((variance * count / (count - 1)).to(given.running_var.dtype), given.momentum)
    normal = centred * torch.rsqrt(variance + given.eps).view(shape)
    if given.weight is not None:
        normal = normal * given.weight.view(shape)
    if given.bias is not None:
        normal = normal + given.bias.view(shape)
    return normal.to(given.input.dtype)
