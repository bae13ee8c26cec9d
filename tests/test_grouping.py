"""Batches for similarity: every sample once, others of its group beside it, the same again from the same seed."""

import numpy as np
import pytest

from recycle_cli.batches import Order, grouped, met_share, shuffled

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


def test_an_order_draws_by_group_only_where_there_are_groups():
    lengths = RNG.integers(1, 9, len(EVEN))
    plain, order = Order(32, 1), Order(32, 1, groups=EVEN, members=4)
    for found, expected in (
        (plain.batches(lengths, 2), shuffled(lengths, 32, 1, 2)),
        (order.batches(lengths, 2), grouped(EVEN, 32, 4, 1, 2)),
    ):
        assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))
    some = np.flatnonzero(EVEN < 5)
    assert np.array_equal(order.among(some).groups, EVEN[some])
    assert plain.among(some) is plain


def test_the_share_that_meets_is_of_those_that_could():
    groups = np.array([0, 0, 0, 1, 1, 2])
    assert met_share([np.arange(6)], groups) == 1.0
    assert met_share([np.array([0, 1, 3]), np.array([2, 4, 5])], groups) == 2 / 5
    assert met_share([np.array([0, 3, 5])], groups) == 0.0
    assert all(met_share(grouped(one, 32, 4, 0, 0), one) == 1.0 for one in (EVEN, UNEVEN))
