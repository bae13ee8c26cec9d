"""Shuffling that can be repeated, next to no padding, and rows as the store holds them."""

import numpy as np
import pytest
import torch

from recycle_cli.batches import StoredRows, in_order, shuffled, widened
from tests.store.corpora import Corpus

LENGTHS = np.random.default_rng(0).integers(1, 200, 5000)


def padding(batches, lengths):
    return sum(len(batch) * lengths[batch].max() for batch in batches) / lengths.sum() - 1


def test_an_epoch_holds_every_sample_once_and_can_be_repeated():
    batches = shuffled(LENGTHS, 32, seed=1, epoch=0)
    assert sorted(np.concatenate(batches).tolist()) == list(range(5000))
    again = shuffled(LENGTHS, 32, seed=1, epoch=0)
    assert all(np.array_equal(one, other) for one, other in zip(batches, again, strict=True))


@pytest.mark.parametrize("other", [{"seed": 2, "epoch": 0}, {"seed": 1, "epoch": 1}])
def test_another_seed_or_epoch_is_another_order(other):
    one, two = shuffled(LENGTHS, 32, seed=1, epoch=0), shuffled(LENGTHS, 32, **other)
    assert not np.array_equal(np.concatenate(one), np.concatenate(two))


def test_buckets_leave_little_padding_and_batches_come_in_no_order_of_length():
    batches = shuffled(LENGTHS, 32, seed=0, epoch=0)
    assert padding(batches, LENGTHS) < 0.05
    means = [LENGTHS[batch].mean() for batch in batches]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.3


def test_in_order_is_the_least_padding():
    batches = in_order(LENGTHS, 32)
    assert sorted(np.concatenate(batches).tolist()) == list(range(5000))
    assert padding(batches, LENGTHS) < 0.02


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int8", "int4"])
def test_stored_rows_are_padded_batches(tmp_path, dtype):
    corpus = Corpus(dtype)
    store = corpus.store(tmp_path / "s", range(20))
    numbers = [7, 3, 19]
    rows = StoredRows.of(store, "2", store.lookup(*corpus.keys(numbers)))
    batch = rows.load(np.array([0, 1, 2]))
    values = widened(batch)
    assert batch["lengths"].tolist() == [corpus.length(number) for number in numbers]
    assert values.shape == (3, max(batch["lengths"].tolist()), 8)
    for row, number in enumerate(numbers):
        expected = torch.from_numpy(corpus.rows(number, "2"))
        error = {"float32": 0, "float16": 2**-11, "bfloat16": 2**-8, "int8": 0.02, "int4": 0.18}[
            dtype
        ] * expected.abs().max()
        assert (values[row, : len(expected)] - expected).abs().max() <= error
        assert not values[row, len(expected) :].any()
