"""BatchNorm over a batch that is divided among ranks: with the statistics of the whole batch, as in one process."""

from collections.abc import Callable, Sequence
from typing import Any

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
        if func is F.batch_norm:
            return _normalised(func, *args, **kwargs)
        if func is torch.batch_norm:
            return _normalised(F.batch_norm, *_in_order(*args, **kwargs))
        return func(*args, **kwargs)


def _in_order(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool = True,
) -> tuple[Any, ...]:
    """The arguments of `torch.batch_norm` in the order of the function's that modules call."""
    return input, running_mean, running_var, weight, bias, training, momentum, eps


def _normalised(
    usual: Callable[..., Tensor],
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """(x - mean) / sqrt(variance + eps) * weight + bias for each channel of x (n, channels, ...), over all ranks."""
    if not training:
        return usual(input, running_mean, running_var, weight, bias, training, momentum, eps)
    rows = input.float()
    others = [one for one in range(rows.dim()) if one != 1]
    shape = [1, -1, *[1] * (rows.dim() - 2)]
    own = rows.numel() // rows.shape[1]
    sums = _Summed.apply(torch.cat([rows.sum(others), rows.new_tensor([own])]))
    count = sums[-1].detach()
    mean = sums[:-1] / count
    centred = rows - mean.view(shape)
    variance = _Summed.apply(centred.square().sum(others)) / count
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_((variance * count / (count - 1)).to(running_var.dtype), momentum)
    normal = centred * torch.rsqrt(variance + eps).view(shape)
    if weight is not None:
        normal = normal * weight.view(shape)
    if bias is not None:
        normal = normal + bias.view(shape)
    return normal.to(input.dtype)
