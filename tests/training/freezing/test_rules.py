"""When layers freeze, beside tables and examples worked out by hand."""

import math

import pytest

from recycle_cli.settings import FreezeSettings
from recycle_cli.training.freezing.rules import (
    AutoFreeze,
    Bound,
    LeastChange,
    Linear,
    annealed,
    autofreeze_rate,
    changes_of,
    freezes_after,
    interval_of,
    rule_of,
)

# Of 41 layers, as ResNet-18 has them, those frozen after each epoch: int(L (t - s) / (1 - s) * 40), worked out with
# fractions. The epochs named last fall on whole numbers, which Composer's floating point misses by one.
LINEAR = {
    (10, 0.1, 0.5): ("0 2 4 6 8 11 13 15 17 20", ()),
    (10, 0.1, 1.0): ("0 4 8 13 17 22 26 31 35 40", ()),
    (10, 0.5, 0.5): ("0 0 0 0 0 4 8 12 16 20", (6, 7)),
    (10, 0.5, 1.0): ("0 0 0 0 0 8 16 24 32 40", (6, 7)),
    (50, 0.1, 0.5): (
        "0 0 0 0 0 0 0 1 1 2 2 3 3 4 4 4 5 5 6 6 7 7 8 8 8 "
        "9 9 10 10 11 11 12 12 12 13 13 14 14 15 15 16 16 16 17 17 18 18 19 19 20",
        (23, 41),
    ),
    (50, 0.1, 1.0): (
        "0 0 0 0 0 0 1 2 3 4 5 6 7 8 8 9 10 11 12 13 14 15 16 16 17 "
        "18 19 20 21 22 23 24 24 25 26 27 28 29 30 31 32 32 33 34 35 36 37 38 39 40",
        (23, 41),
    ),
    (50, 0.5, 0.5): (
        "0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 "
        "0 1 2 3 4 4 5 6 7 8 8 9 10 11 12 12 13 14 15 16 16 17 18 19 20",
        (30, 35),
    ),
    (50, 0.5, 1.0): (
        "0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 "
        "1 3 4 6 8 9 11 12 14 16 17 19 20 22 24 25 27 28 30 32 33 35 36 38 40",
        (30, 35),
    ),
}


@pytest.mark.parametrize(("epochs", "start", "level"), LINEAR)
def test_linear_is_composers_rule_at_every_epoch(epochs, start, level):
    table, one_short = LINEAR[epochs, start, level]
    by_hand = list(map(int, table.split()))
    assert len(by_hand) == epochs
    rule = Linear(41, start, level)
    expected = [count - (epoch in one_short) for epoch, count in enumerate(by_hand, 1)]
    assert [rule.frozen(epoch, epochs) for epoch in range(1, epochs + 1)] == expected
    assert rule.frozen(epochs, epochs) == level * 40  # never the last


def test_bound_takes_its_share_of_what_is_left():
    """Of 12: 4; 4 + 8/3 = 6.7; 6.7 + 5.3/3 = 8.4; 8.4 + 3.6/3 = 9.6, each rounded up."""
    assert [Bound(12, 1 / 3).frozen(epoch, 10) for epoch in range(5)] == [0, 4, 7, 9, 10]
    assert [Bound(6, 1 / 3).frozen(epoch, 10) for epoch in range(6)] == [0, 2, 4, 5, 5, 6]
    assert [Bound(4, 0.5).frozen(epoch, 10) for epoch in range(4)] == [0, 2, 3, 4]
    assert Bound(4, 1.0).frozen(1, 3) == 4
    assert Bound(4, 0.0).frozen(3, 3) == 0


def test_changes_are_relative_to_the_interval_before():
    assert changes_of([4.0, 2.0, 1.0, 0.0, 0.0], [3.0, 3.0, 1.0, 0.0, 2.0]) == [0.25, 0.5, 0.0, 0.0, math.inf]


# Norms of five layers in two intervals: 10 -> 8, 5 -> 4.5, 4 -> 3.9, 2 -> 1, 8 -> 12.
CHANGES = [0.2, 0.1, 0.025, 0.5, 0.5]


@pytest.mark.parametrize(
    ("reading", "frozen", "expected"),
    [
        ("argmin", set(), {2}),
        ("argmin", {2}, {1}),
        ("argmin", {1, 2}, {0}),
        ("frontier", set(), set()),  # the least, 2, is behind 0
        ("frontier", {0, 1}, {2}),
        ("frontier", {0, 1, 2}, {3}),  # the first of two equal ones
        ("up-to", set(), {0, 1, 2}),
        ("up-to", {0, 1, 2}, {3}),
        ("up-to", {0, 1, 2, 3, 4}, set()),
    ],
)
def test_the_three_readings_of_the_least_change(reading, frozen, expected):
    found = changes_of([10, 5, 4, 2, 8], [8, 4.5, 3.9, 1, 12])
    assert found == pytest.approx(CHANGES)
    assert LeastChange(reading).newly_frozen(CHANGES, frozenset(frozen)) == expected


@pytest.mark.parametrize(
    ("changes", "frozen", "expected"),
    [
        # the median of five is the third: 0.2, the change of the first, which goes on training
        ([0.2, 0.1, 0.025, 0.5, 0.5], 0, set()),
        # sorted 0.05 0.1 0.3 0.4 0.6: the median 0.3 is first reached by layer 2
        ([0.1, 0.05, 0.3, 0.6, 0.4], 0, {0, 1}),
        # of the four from layer 2 on: 0.1 0.2 0.4 0.6, their median 0.3, first reached by layer 4
        ([9.0, 9.0, 0.1, 0.2, 0.6, 0.4], 2, {2, 3}),
        # one layer is its own median
        ([9.0, 9.0, 0.1], 2, set()),
        ([9.0, 9.0], 2, set()),
    ],
)
def test_autofreeze_goes_on_from_the_first_layer_at_the_median(changes, frozen, expected):
    assert AutoFreeze().newly_frozen(changes, frozenset(range(frozen))) == expected


def test_intervals():
    assert interval_of(FreezeSettings("autofreeze"), 4, 229) == 45  # 916 steps by 20 are 45.8
    assert interval_of(FreezeSettings("autofreeze"), 1, 5) == 1
    assert interval_of(FreezeSettings("gradient-norm"), 4, 229) == 229
    assert interval_of(FreezeSettings("gradient-norm", interval=100), 4, 229) == 100


def test_the_rate_of_autofreeze_falls_twice():
    rates = [autofreeze_rate(step, 100) for step in range(100)]
    assert rates == [1.0] * 30 + [0.7] * 30 + [0.4] * 40


def test_a_rate_that_anneals_is_0_when_its_layer_freezes():
    assert [annealed(done) for done in (0.0, 0.5, 1.0, 2.0)] == pytest.approx([1.0, 0.5, 0.0, 0.0])
    assert [freezes_after(Bound(6, 1 / 3), layer, 4) for layer in range(6)] == [1, 1, 2, 2, 3, None]


def test_the_rule_that_is_asked_for():
    assert rule_of(FreezeSettings("linear"), 6) == Linear(7, 0.5, 1.0)  # the last is the task's own
    assert rule_of(FreezeSettings("linear", unit="leaf"), 41) == Linear(41, 0.5, 1.0)
    assert rule_of(FreezeSettings("bound"), 6) == Bound(6, 1 / 3)
    assert rule_of(FreezeSettings("gradient-norm", reading="up-to"), 6) == LeastChange("up-to")
    assert rule_of(FreezeSettings("autofreeze"), 6) == AutoFreeze()
