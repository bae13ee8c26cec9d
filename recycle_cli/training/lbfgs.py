"""The optimum of many linear heads on the same features: L-BFGS, whose products with the features they share.

Source: Nocedal and Wright, Numerical Optimization, algorithm 7.4. Each head has steps and a memory of its own; what the
heads have in common are the two products of an iteration, with the features and with their transpose, so that a hundred
heads pass over the features as often as one. Outputs are linear in the step, which makes the search for its length free
of products. It starts from the inverse of the Hessian in the directions in which the features vary most, which all
heads share but for a factor.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

MEMORY = 10
"""Steps that each head remembers."""

TOLERANCE = 1e-3
"""The gradient's norm at the optimum, as a share of that without weights."""

MOST = 500
"""Iterations at most: tens are usual."""

SUFFICIENT, SHORTER, SHORTENED = 1e-4, 0.5, 25
"""The search for a step's length: how much of the expected decrease it wants, by how much and how often it shortens."""

Loss = Callable[[Tensor], Tensor]
"""The outputs (n, C) of a head to its mean loss."""


@dataclass(frozen=True)
class Directions:
    """The directions in which standardised features vary most. `basis` (F, r), orthonormal; `variances` (r,)."""

    basis: Tensor
    variances: Tensor

    @classmethod
    def of(cls, features: Tensor, most: int, seed: int = 0) -> "Directions":
        """At most so many of features (n, F), which are all of them if there are no more samples or features."""
        count, width = features.shape
        if min(count, width) > most:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                _, values, basis = torch.svd_lowrank(features, q=most, niter=1)
            return cls(basis.contiguous(), values.square() / count)
        if width <= count:
            squares, basis = torch.linalg.eigh((features.T @ features).double())
            return cls(basis.to(features.dtype), (squares.clamp_min(0) / count).to(features.dtype))
        squares, sides = torch.linalg.eigh((features @ features.T).double())
        kept = squares > 1e-9 * squares[-1]
        if not kept.any():  # all samples are alike
            return cls(features.new_zeros(width, 1), features.new_zeros(1))
        basis = features.T @ (sides[:, kept] / squares[kept].sqrt()).to(features.dtype)
        return cls(basis, (squares[kept] / count).to(features.dtype))


@dataclass
class Heads:
    """Linear heads side by side: the columns of `weights` (F, K) and of `bias` (K,) are their outputs.

    losses  of each head
    owner   the head (K,) that each column belongs to
    l2      lambda of each weight, (F, K) or of each column, (K,)
    """

    losses: Sequence[Loss]
    owner: Tensor
    l2: Tensor
    weights: Tensor
    bias: Tensor

    def of_each(self, values: Tensor) -> Tensor:
        """The sums of the columns' values (K,) over the columns of each head."""
        return values.new_zeros(len(self.losses)).index_add_(0, self.owner, values)

    def dots(self, one: Tensor, other: Tensor) -> Tensor:
        """Products of weights and bias (F + 1, K), summed for each head."""
        return self.of_each((one * other).sum(0))

    def loss(self, outputs: Tensor, heads: Tensor) -> tuple[Tensor, Tensor]:
        """The mean losses of these heads, of others infinite, and their gradient by the outputs (n, K)."""
        found, gradient = outputs.new_full((len(self.losses),), torch.inf), torch.zeros_like(outputs)
        for head in heads.nonzero().flatten().tolist():
            own = self.owner == head
            with torch.enable_grad():
                values = outputs[:, own].detach().requires_grad_()
                loss = self.losses[head](values)
            (gradient[:, own],) = torch.autograd.grad(loss, values)
            found[head] = loss.detach()
        return found, gradient

    def curvature(self, outputs: Tensor) -> Tensor:
        """The mean second derivative of each head's losses (H,) by an output, at these outputs (n, K)."""
        step = 1e-2 * (1 - 2 * (torch.arange(outputs.numel(), device=outputs.device).view_as(outputs) * 7 % 3 % 2))
        everyone = torch.ones(len(self.losses), dtype=torch.bool, device=outputs.device)
        change = self.loss(outputs + step, everyone)[1] - self.loss(outputs, everyone)[1]
        sizes = self.of_each(torch.ones_like(self.bias))
        return (self.of_each((change * step).sum(0)) / (1e-4 * sizes)).clamp_min(1e-6)


def minimise(
    features: Tensor, heads: Heads, directions: Directions, *, tolerance: float = TOLERANCE, safe: Callable[[], None]
) -> None:
    """Let each head's mean loss plus its penalty, the sum of l2 / 2 times each weight's square, be least.

    features    (n, F), whose means are zero
    directions  of the features; its `basis` has no column if they are taken for directions themselves, which they must
                be if the weights of a column have several l2
    safe        called between iterations, when it may raise
    """
    owner = heads.owner
    outputs = features @ heads.weights + heads.bias
    active = torch.ones(len(heads.losses), dtype=torch.bool, device=features.device)
    inverse = _Inverse(heads, directions, heads.curvature(outputs))
    loss, by_outputs = heads.loss(outputs, active)
    gradient = _gradient(features, heads, by_outputs)
    without = (heads.loss(torch.zeros_like(outputs), active)[1].T @ features).T
    limit = tolerance * heads.dots(without, without).sqrt().clamp_min(1e-12)
    for _ in range(MOST):
        safe()
        active = active & (heads.dots(gradient, gradient).sqrt() > limit)
        if not active.any():
            return
        columns = active[owner]
        step = torch.zeros_like(gradient)
        step[:, columns] = -inverse.times(gradient)[:, columns]
        ahead = torch.zeros_like(outputs)
        ahead[:, columns] = features @ step[:-1, columns] + step[-1, columns]
        found = _searched(heads, (outputs, ahead), (loss, step), heads.dots(gradient, step), active)
        lengths, loss, by_outputs = found
        active = active & (lengths > 0)
        step, columns = step * lengths[owner], active[owner]
        heads.weights += step[:-1]
        heads.bias += step[-1]
        outputs = outputs + ahead * lengths[owner]
        before, gradient = gradient, gradient.clone()
        gradient[:, columns] = _gradient(features, heads, by_outputs, columns)
        inverse.remember(step, gradient - before)


def _gradient(features: Tensor, heads: Heads, by_outputs: Tensor, columns: Tensor | slice = slice(None)) -> Tensor:
    """The gradient by weights and bias (F + 1, K) at some columns."""
    own = by_outputs[:, columns]
    by_weights = (own.T @ features).T + heads.l2[..., columns] * heads.weights[:, columns]
    return torch.cat([by_weights, own.sum(0)[None]])


def _searched(
    heads: Heads, along: tuple[Tensor, Tensor], step: tuple[Tensor, Tensor], slope: Tensor, active: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """How far each head goes along its step: the first of 1, 1/2, 1/4, ... that gains enough, 0 if none does. Also its
    loss there and the gradient by its outputs.

    along  the outputs, and how they change along the step
    step   the loss before it, and the step (F + 1, K)
    """
    (outputs, ahead), (loss, whole) = along, step
    penalty = (heads.l2 * heads.weights * whole[:-1]).sum(0)
    squares = heads.of_each((heads.l2 * whole[:-1].square()).sum(0)) / 2
    linear = heads.of_each(penalty)
    lengths, left = active.to(outputs.dtype), active & (slope < 0)
    lengths[active & ~left] = 0
    found, by_outputs = loss.clone(), torch.zeros_like(outputs)
    for _ in range(SHORTENED):
        if not left.any():
            return lengths, found, by_outputs
        now, gradient = heads.loss(outputs + ahead * lengths[heads.owner], left)
        gain = now - loss + lengths * linear + lengths.square() * squares
        slack = 1e-6 * loss.abs()  # of rounding, near the optimum
        good = left & (gain <= SUFFICIENT * lengths * slope + slack)
        found = torch.where(good, now, found)
        by_outputs = torch.where(good[heads.owner], gradient, by_outputs)
        left = left & ~good
        lengths = torch.where(left, lengths * SHORTER, lengths)
    lengths[left] = 0
    return lengths, found, by_outputs


class _Inverse:
    """What L-BFGS knows of the inverse of each head's Hessian."""

    def __init__(self, heads: Heads, directions: Directions, curvature: Tensor) -> None:
        self._heads, self._basis = heads, directions.basis
        self._curvature = curvature[heads.owner]
        l2 = heads.l2
        least = 1e-6 * self._curvature * directions.variances.max().clamp_min(1e-3)
        self._within = 1 / (self._curvature * directions.variances[:, None] + l2).clamp_min(least)
        self._beyond = 1 / (self._curvature * directions.variances.min() + l2).clamp_min(least)  # as the least of them
        self._steps: list[tuple[Tensor, Tensor, Tensor]] = []

    def times(self, gradient: Tensor) -> Tensor:
        """Its product with weights and bias (F + 1, K)."""
        found, shares = gradient, []
        for step, change, curved in reversed(self._steps):
            share = self._over(self._heads.dots(step, found), curved)
            shares.append(share)
            found = found - share * change
        found = self._start(found)
        for (step, change, curved), share in zip(self._steps, reversed(shares), strict=True):
            found = found + (share - self._over(self._heads.dots(change, found), curved)) * step
        return found

    def remember(self, step: Tensor, change: Tensor) -> None:
        """A step (F + 1, K), and how the gradient changed along it; of a head without a step nothing."""
        curved = self._heads.dots(step, change)
        scale = (self._heads.dots(step, step) * self._heads.dots(change, change)).sqrt()
        self._steps = [*self._steps[1 - MEMORY :], (step, change, torch.where(curved > 1e-8 * scale, curved, 0.0))]

    def _over(self, dots: Tensor, curved: Tensor) -> Tensor:
        return torch.where(curved > 0, dots / curved.clamp_min(1e-38), 0.0)[self._heads.owner]

    def _start(self, gradient: Tensor) -> Tensor:
        """The inverse to start from, along the directions and beyond them."""
        own, bias = gradient[:-1], gradient[-1] / self._curvature
        if not self._basis.numel():
            return torch.cat([own * self._within, bias[None]])
        inside = self._basis.T @ own
        found = self._basis @ (inside * (self._within - self._beyond)) + own * self._beyond
        return torch.cat([found, bias[None]])
