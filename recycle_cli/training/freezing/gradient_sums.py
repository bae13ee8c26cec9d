"""Sums of the gradients of an interval, layer by layer, and their norms."""

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from recycle_cli.training.freezing.layers import Layers
from recycle_cli.training.freezing.rules import Norm

PREFIX = "freezing."
"""Stands before the names of the sums in a checkpoint."""


class GradientSums:
    """The sum of each weight's gradients since the last reset, of the layers that still train."""

    def __init__(self, layers: Layers, norm: Norm) -> None:
        self._layers, self._norm = layers, norm
        self._weights = {name: one for own in layers.weights for name, one in own.items()}
        self.sums: dict[str, Tensor] = {}

    def add(self, weight: float, *, scaled: bool = False, gradients: Mapping[str, Tensor] | None = None) -> None:
        """Add the gradients of the mean loss.

        weight     what the losses weigh, of whose sum the gradients are
        scaled     they were computed at a scale that may have been too large; then those of the step are left out
        gradients  those that are added; by default those that the weights hold
        """
        if gradients is None:
            gradients = {name: one.grad for name, one in self._weights.items() if one.grad is not None}
        if not gradients:  # all of them are frozen
            return
        if scaled and not torch.isfinite(torch.stack(torch._foreach_norm(list(gradients.values())))).all():
            return
        for name, gradient in gradients.items():
            if name not in self.sums:
                self.sums[name] = torch.zeros_like(gradient)
        torch._foreach_add_([self.sums[name] for name in gradients], list(gradients.values()), alpha=1 / weight)

    def norms(self) -> list[float]:
        """The norm of each layer's sum: the Euclidean one of all its numbers (l2), or the sum of their magnitudes (l1).
        0 for one that is frozen."""
        return [self._norm_of([self.sums[name] for name in own if name in self.sums]) for own in self._layers.weights]

    def _norm_of(self, sums: list[Tensor]) -> float:
        if not sums:
            return 0.0
        order = 1 if self._norm == "l1" else 2
        norms = torch.stack([torch.linalg.vector_norm(one.float(), order) for one in sums]).tolist()
        return math.fsum(norms) if order == 1 else math.hypot(*norms)

    def reset(self) -> None:
        """Begin a new interval; nothing stays in memory for layers that do not train any more."""
        self.sums.clear()

    def drop(self, names: Iterable[str]) -> None:
        """Forget weights that are frozen."""
        for name in names:
            self.sums.pop(name, None)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps of an interval that has not ended."""
        return {f"{PREFIX}{name}": one for name, one in self.sums.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what a checkpoint has kept."""
        for name, one in tensors.items():
            weight = self._weights[name.removeprefix(PREFIX)]
            self.sums[name.removeprefix(PREFIX)] = one.to(weight.device)
