"""The optimizer of a head, and its gradients."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from recycle_cli.settings import TrainingSettings

Weights = Mapping[str, torch.nn.Parameter]


def make_optimizer(
    weights: Weights, settings: TrainingSettings, layers: Sequence[Weights] = (), key: str = ""
) -> torch.optim.Optimizer:
    """AdamW or SGD, as the settings say; no decay on vectors (biases, norms), as is usual. The weights of each of the
    `layers` have groups of their own, with the layer's number under `key`."""
    apart = {name for own in layers for name in own}
    groups = _groups([one for name, one in weights.items() if name not in apart], settings)
    for number, own in enumerate(layers):
        groups += [{**group, key: number} for group in _groups(list(own.values()), settings)]
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=settings.highest_rate, momentum=settings.momentum, fused=True)
    return torch.optim.AdamW(groups, lr=settings.highest_rate, fused=True)


def _groups(weights: Sequence[torch.nn.Parameter], settings: TrainingSettings) -> list[dict[str, Any]]:
    return [
        {"params": [one for one in weights if one.dim() > 1], "weight_decay": settings.weight_decay},
        {"params": [one for one in weights if one.dim() <= 1], "weight_decay": 0.0},
    ]


def divide_and_clip(weights: Iterable[torch.nn.Parameter], weight: float, max_norm: float) -> float:
    """Make gradients of a sum of losses those of its mean, and clip their norm; returns the norm before clipping.

    `weight` is what the losses of the sum weigh together; `max_norm` 0 never clips. One pass over the gradients does
    both. Clipping is that of `torch.nn.utils.clip_grad_norm_`.
    """
    gradients = [one.grad for one in weights if one.grad is not None]
    norms = torch.stack(torch._foreach_norm(gradients))
    norm = float(torch.linalg.vector_norm(norms)) / weight
    clip = min(1.0, (max_norm or math.inf) / (norm + 1e-6))
    torch._foreach_mul_(gradients, clip / weight)
    return norm
