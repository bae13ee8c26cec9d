"""The optimizer of a head, and its gradients."""

import math
from collections.abc import Iterable, Mapping

import torch

from recycle_cli.settings import TrainingSettings

Weights = Mapping[str, torch.nn.Parameter]


def make_optimizer(weights: Weights, settings: TrainingSettings) -> torch.optim.AdamW:
    """AdamW; no decay on vectors (biases, norms), as is usual."""
    groups = [
        {"params": [w for w in weights.values() if w.dim() > 1], "weight_decay": settings.weight_decay},
        {"params": [w for w in weights.values() if w.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.highest_rate, fused=True)


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
