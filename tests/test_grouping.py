"""Batches for similarity: every sample once, others of its group beside it, the same again from the same seed."""

import numpy as np
import pytest

from recycle_cli.batches import grouped

RNG = np.random.default_rng(0)
EVEN = RNG.permutation(np.arange(400) % 20)
UNEVEN = RNG.permutation(np.repeat(np.arange(60), RNG.integers(1, 30, 60)))
RARE = RNG.permutation(np.repeat([0, 1], [990, 10]))


@pytest.mark.parametrize("groups", [EVEN, UNEVEN, RARE, np.zeros(1, dtype=int), np.zeros(5, dtype=int)])
@pytest.mark.parametrize("members", [2, 4])
def test_an_epoch_holds_every_sample_once_in_batches_of_the_size(groups, members):
    batches = grouped(groups, 32, members, seed=1, epoch=2)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(groups)))
    assert max(map(len, batches)) <= 33
    assert len(batches) <= 1.2 * len(groups) / 32 + 1


@pytest.mark.parametrize("groups", [EVEN, UNEVEN])
@pytest.mark.parametrize("members", [2, 4])
def test_nobody_is_alone_in_a_batch_but_in_the_data(groups, members):
    for batch in grouped(groups, 32, members, seed=0, epoch=0):
        for group, count in zip(*np.unique(groups[batch], return_counts=True), strict=True):
            assert count >= min(2, (groups == group).sum())


@pytest.mark.parametrize("groups", [EVEN, UNEVEN])
def test_a_batch_holds_several_groups(groups):
    counts = [len(np.unique(groups[batch])) for batch in grouped(groups, 32, 4, seed=0, epoch=0)]
    assert np.mean(counts) > 6


def test_a_rare_group_is_spread_over_the_epoch():
    batches = grouped(RARE, 100, 2, seed=0, epoch=0)
    holding = [place for place, batch in enumerate(batches) if (RARE[batch] == 1).any()]
    assert len(holding) >= 4
    assert max(holding) - min(holding) >= 5


def test_the_same_seed_and_epoch_give_the_same_batches_and_others_do_not():
    def joined(seed, epoch):
        return np.concatenate(grouped(EVEN, 32, 4, seed, epoch))

    assert np.array_equal(joined(1, 1), joined(1, 1))
    assert not np.array_equal(joined(1, 1), joined(1, 2))
    assert not np.array_equal(joined(1, 1), joined(2, 1))
