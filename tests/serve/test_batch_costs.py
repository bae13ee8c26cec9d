"""Parts share a batch as long as padding them costs less than a batch of their own."""

import numpy as np
import pytest

from recycle_cli.serve.batch_costs import BatchCosts, of_like_lengths

DRAW = np.random.default_rng(0)

MANY = 10_000
"""Tokens from which on all overheads are alike: none of these batches is so large."""


def cost(parts, lengths, overhead):
    return sum(overhead + len(lengths[part]) * lengths[part].max() for part in parts)


def every_division(count):
    for bits in range(2 ** (count - 1)):
        ends = [place + 1 for place in range(count - 1) if bits >> place & 1] + [count]
        yield [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]


@pytest.mark.parametrize("overhead", [0.0, 5.0, 60.0, 1e6])
def test_no_other_division_costs_less_and_none_is_made_that_saves_little(overhead):
    for _ in range(20):
        lengths = np.sort(DRAW.integers(1, 200, DRAW.integers(1, 9)))[::-1]
        found = list(of_like_lengths(lengths, overhead))
        assert sorted(place for part in found for place in range(part.start, part.stop)) == list(range(len(lengths)))
        least = min(cost(parts, lengths, overhead) for parts in every_division(len(lengths)))
        whole = cost([slice(0, len(lengths))], lengths, overhead)
        assert cost(found, lengths, overhead) == pytest.approx(least if least <= 0.9 * whole else whole)


def test_equal_lengths_are_one_batch_and_so_is_all_while_nothing_is_known():
    assert list(of_like_lengths(np.full(9, 30), 0.1)) == [slice(0, 9)]
    assert list(of_like_lengths(np.array([500, 3, 2]), BatchCosts().overhead)) == [slice(0, 3)]


@pytest.mark.parametrize(("start", "each"), [(0.016, 0.0003), (0.004, 1e-7), (0.0, 0.001)])
def test_the_overhead_is_learnt_from_the_batches(start, each):
    costs = BatchCosts()
    for tokens in DRAW.integers(20, 3000, 60).tolist():
        costs.note(tokens, (start + each * tokens) * DRAW.uniform(0.98, 1.02))
    assert min(costs.overhead, MANY) == pytest.approx(min(start / each, MANY), rel=0.3, abs=20)


def test_what_cannot_be_learnt_divides_nothing():
    alike, faster = BatchCosts(), BatchCosts()
    for place in range(20):
        alike.note(64, 0.01 + 0.001 * place)
        faster.note(10 * place, 1.0 - 0.01 * place)
    assert alike.overhead == faster.overhead == float("inf")


def test_a_machine_that_gets_slower_is_learnt_again():
    costs = BatchCosts()
    for start in (0.001, 0.1):
        for tokens in DRAW.integers(20, 3000, 300).tolist():
            costs.note(tokens, start + 0.001 * tokens)
    assert costs.overhead == pytest.approx(100, rel=0.1)
