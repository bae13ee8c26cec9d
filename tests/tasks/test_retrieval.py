"""R-precision against plain loops, torchmetrics, chance, and in small pieces."""

import numpy as np
import pytest
import torch
from torchmetrics.functional.retrieval import retrieval_r_precision

from recycle_cli.tasks import retrieval
from recycle_cli.tasks.retrieval import r_precision


def data(count, groups, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 5, generator=generator), torch.randint(groups, (count,), generator=generator)


def by_hand(x, groups):
    x = (x / x.norm(dim=1, keepdim=True)).numpy()
    hits = places = 0
    for i, own in enumerate(groups):
        others = [j for j in range(len(groups)) if j != i]
        r = sum(int(groups[j] == own) for j in others)
        nearest = sorted(others, key=lambda j: -float(np.dot(x[i], x[j])))[:r]
        hits += sum(int(groups[j] == own) for j in nearest)
        places += r
    return hits / places


@pytest.mark.parametrize(("count", "groups"), [(30, 3), (40, 12), (25, 25), (9, 1)])
def test_it_is_the_pooled_lists_of_the_nearest(count, groups, monkeypatch):
    x, wanted = data(count, groups)
    expected = by_hand(x, wanted.tolist())
    assert r_precision(x, wanted) == pytest.approx(expected)
    monkeypatch.setattr(retrieval, "VALUES_AT_ONCE", 3 * count)
    assert r_precision(x, wanted) == pytest.approx(expected)


def test_with_groups_of_one_size_it_is_the_mean_of_torchmetrics():
    x, _ = data(24, 1)
    groups = torch.arange(24) % 4
    near = torch.nn.functional.normalize(x, dim=1)
    near = near @ near.T
    each = []
    for i in range(24):
        others = torch.arange(24) != i
        each.append(float(retrieval_r_precision(near[i][others], groups[others] == groups[i])))
    assert r_precision(x, groups) == pytest.approx(np.mean(each))


def test_samples_alone_in_their_group_have_no_list():
    x = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    assert r_precision(x, torch.tensor([0, 0, 1])) == 1.0
    assert r_precision(x, torch.tensor([0, 1, 2])) == 0.0


def test_equal_vectors_give_chance_whatever_their_order():
    """Where all lie in one point, no order of the samples may decide."""
    x = torch.ones(20, 4)
    for groups in (torch.arange(20) % 4, torch.arange(20) // 5):
        assert r_precision(x, groups) == pytest.approx(4 / 19)
