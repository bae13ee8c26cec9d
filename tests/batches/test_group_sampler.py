"""Batches for similarity: every sample once, others of its group beside it, the same again from the same seed."""

import numpy as np
import pytest

from recycle_cli.batches import Grouped
from recycle_cli.batches.group_sampler import grouped, met_share

RNG = np.random.default_rng(0)
EVEN = RNG.permutation(np.arange(400) % 20)
UNEVEN = RNG.permutation(np.repeat(np.arange(60), RNG.integers(1, 30, 60)))
RARE = RNG.permutation(np.repeat([0, 1], [990, 10]))


@pytest.mark.parametrize("groups", [EVEN, UNEVEN, RARE, np.zeros(1, dtype=int), np.zeros(5, dtype=int)])
@pytest.mark.parametrize("group_samples", [2, 4])
def test_an_epoch_holds_every_sample_once_in_batches_of_the_size(groups, group_samples):
    batches = grouped(groups, 32, group_samples, seed=1, epoch=2)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(groups)))
    assert max(map(len, batches)) <= 33
    assert len(batches) <= 1.2 * len(groups) / 32 + 1


@pytest.mark.parametrize("groups", [EVEN, UNEVEN])
@pytest.mark.parametrize("group_samples", [2, 4])
def test_nobody_is_alone_in_a_batch_but_in_the_data(groups, group_samples):
    for batch in grouped(groups, 32, group_samples, seed=0, epoch=0):
        for group, count in zip(*np.unique(groups[batch], return_counts=True), strict=True):
            assert count >= min(2, (groups == group).sum())


@pytest.mark.parametrize("groups", [EVEN, UNEVEN])
@pytest.mark.parametrize("group_samples", [2, 4])
def test_a_batch_holds_as_many_groups_as_it_can(groups, group_samples):
    """No group has more clusters here than there are batches, so that none comes twice into one batch."""
    for batch in grouped(groups, 32, group_samples, seed=0, epoch=0):
        assert np.unique(groups[batch], return_counts=True)[1].max() <= group_samples + 1


@pytest.mark.parametrize("size", [5, 6, 7, 8, 9, 11])
def test_batches_for_two_clusters_hold_two_groups(size):
    groups = RNG.permutation(np.repeat(np.arange(20), size))
    batches = grouped(groups, 10, 4, seed=0, epoch=0)
    assert all(len(np.unique(groups[batch])) > 1 for batch in batches)
    assert max(map(len, batches)) <= 10


def test_a_group_of_many_clusters_is_in_every_batch_beside_the_others():
    groups = RNG.permutation(np.repeat([0, 1, 2], [600, 80, 40]))
    batches = grouped(groups, 32, 4, seed=0, epoch=0)
    assert all((groups[batch] == 0).any() and (groups[batch] > 0).any() for batch in batches)


def test_no_batch_is_of_one_sample_where_there_are_two():
    for count in range(2, 60):
        for groups in (np.arange(count), np.arange(count) // 2, np.arange(count) % 3):
            assert min(map(len, grouped(groups, 10, 4, seed=0, epoch=0))) > 1


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


def test_among_some_samples_each_still_meets_its_group():
    some = RNG.permutation(np.flatnonzero(EVEN < 5))
    batches = Grouped(32, 1, EVEN, 4).among(some).batches(RNG.integers(1, 9, len(some)), 2)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(some)))
    assert met_share(batches, EVEN[some]) == 1.0


def test_the_share_that_meets_is_of_those_that_could():
    groups = np.array([0, 0, 0, 1, 1, 2])
    assert met_share([np.arange(6)], groups) == 1.0
    assert met_share([np.array([0, 1, 3]), np.array([2, 4, 5])], groups) == 2 / 5
    assert met_share([np.array([0, 3, 5])], groups) == 0.0
    assert all(met_share(grouped(one, 32, 4, 0, 0), one) == 1.0 for one in (EVEN, UNEVEN))


def test_a_batch_of_one_group_meets_nothing_to_be_compared_with():
    groups = np.array([0, 0, 0, 1, 1, 2])
    assert met_share([np.array([0, 1, 2]), np.array([3, 4, 5])], groups) == 2 / 5
    assert met_share([np.array([0, 1, 2]), np.array([3, 4])], groups) == 0.0
