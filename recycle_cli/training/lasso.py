"""The group lasso over states: what a linear head reads costs by state, so that states it does not need fall out.

It is solved by its variational form, in which the norm of a state's part w is the least of (w^2 / e + e) / 2 for e > 0:
ridge regressions in turn, each with the e of the last. Source: Bach et al., Optimization with Sparsity-Inducing
Penalties (2012), section 5.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from recycle_cli.training.lbfgs import Directions, Heads, Loss, minimise

ROUNDS = 15
TOLERANCE = 1e-3
LEAST = 1e-3
"""The norm below which a state's part is none, as a share of the largest."""


def without_idle_states(
    features: Tensor,
    loss: Loss,
    begun: tuple[Tensor, Tensor],
    l2: float,
    share: float,
    sizes: Sequence[int],
    safe: Callable[[], None],
) -> tuple[Tensor, Tensor]:
    """Weights (F, C) and bias (C,) whose mean loss, plus l2 / 2 times their squares, plus the norms of the states'
    parts times a price, is least.

    features  standardised, (n, F): of each state `sizes` one after another
    begun     weights and bias to begin from
    share     the price, as a share of the least at which nothing is left
    """
    weights, bias = begun
    owner = torch.zeros(len(bias), dtype=torch.int64, device=weights.device)
    along_each = Directions(features.new_empty(features.shape[1], 0), features.new_ones(features.shape[1]))
    heads = Heads([loss], owner, weights, weights.clone(), bias.clone())
    everyone = torch.ones(1, dtype=torch.bool, device=weights.device)
    steepest = features.T @ heads.loss(features.new_zeros(len(features), len(bias)), everyone)[1]
    price = share * max(float(part.norm()) for part in steepest.split(list(sizes)))
    for _ in range(ROUNDS):
        norms = torch.stack([part.norm() for part in heads.weights.split(list(sizes))])
        costs = l2 + price / norms.clamp_min(LEAST * float(norms.max()) + 1e-12)
        rows = costs.repeat_interleave(torch.tensor(list(sizes), device=costs.device))
        heads.l2 = rows[:, None].expand_as(weights)
        minimise(features, heads, along_each, tolerance=TOLERANCE, safe=safe)
    norms = torch.stack([part.norm() for part in heads.weights.split(list(sizes))])
    kept = (norms > 2 * LEAST * norms.max()).repeat_interleave(torch.tensor(list(sizes), device=norms.device))
    return heads.weights * kept[:, None], heads.bias
