"""The losses against their formulas, written out sample by sample."""

import numpy as np
import pytest
import torch

from recycle_cli.tasks.losses import batch_hard_triplet, supervised_contrastive

GROUPS = [0, 1, 0, 2, 1, 1, 0, 3]
"""The last two groups have one sample each."""


def vectors(seed=0, count=8):
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cosine(a, b):
    return float(np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b))


def triplet_by_hand(x, groups, margin):
    pairs = []
    for i, own in enumerate(groups):
        distances = [(1 - cosine(x[i], other)) / 2 for other in x]
        positive = [distances[j] for j, group in enumerate(groups) if group == own and j != i]
        negative = [distances[j] for j, group in enumerate(groups) if group != own]
        if positive and negative:
            pairs.append((max(positive), min(negative)))
    scale = np.mean([negative for _, negative in pairs])
    return np.mean([max(0.0, (positive - negative) / scale + margin) for positive, negative in pairs])


def contrastive_by_hand(x, groups, temperature):
    terms = []
    for i, own in enumerate(groups):
        exponentials = [np.exp(cosine(x[i], other) / temperature) for other in x]
        below = sum(value for j, value in enumerate(exponentials) if j != i)
        positive = [j for j, group in enumerate(groups) if group == own and j != i]
        if positive:
            terms.append(-np.mean([np.log(exponentials[j] / below) for j in positive]))
    return np.mean(terms)


@pytest.mark.parametrize("margin", [0.5, 0.0])
def test_batch_hard_triplet_is_its_formula(margin):
    for seed in range(3):
        x = vectors(seed)
        found = batch_hard_triplet(x, torch.tensor(GROUPS), margin)
        assert float(found.mean()) == pytest.approx(triplet_by_hand(x.numpy(), GROUPS, margin), rel=1e-5)


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_supervised_contrastive_is_its_formula(temperature):
    for seed in range(3):
        x = vectors(seed)
        found = supervised_contrastive(x, torch.tensor(GROUPS), temperature)
        assert float(found.mean()) == pytest.approx(contrastive_by_hand(x.numpy(), GROUPS, temperature), rel=1e-4)


LOSSES = [
    pytest.param(lambda x, groups: batch_hard_triplet(x, groups, 0.5), id="triplet"),
    pytest.param(lambda x, groups: supervised_contrastive(x, groups, 0.1), id="contrastive"),
]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("groups", [[0, 1, 2, 3], [0]])
def test_without_a_pair_the_loss_is_nothing_and_has_a_gradient(loss, groups):
    x = vectors(count=len(groups)).requires_grad_()
    found = loss(x, torch.tensor(groups))
    found.sum().backward()
    assert len(found) == 0
    assert not x.grad.any()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("same", [False, True])
def test_the_gradient_is_finite_even_for_equal_vectors(loss, same):
    x = torch.ones(len(GROUPS), 6) if same else vectors().float()
    x.requires_grad_()
    loss(x, torch.tensor(GROUPS)).mean().backward()
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_a_step_down_brings_groups_together(loss):
    x, groups = vectors().float().requires_grad_(), torch.tensor(GROUPS)
    optimizer = torch.optim.SGD([x], lr=0.5)
    before = loss(x, groups).mean().item()
    for _ in range(20):
        optimizer.zero_grad()
        loss(x, groups).mean().backward()
        optimizer.step()
    assert loss(x, groups).mean().item() < 0.7 * before
