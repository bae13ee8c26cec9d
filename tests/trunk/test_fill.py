"""When a pass seals what it has written, by a clock of its own."""

import sys
from types import SimpleNamespace

import pytest

import recycle_cli.trunk  # noqa: F401 - whose function `fill` hides the module of this name
from recycle_cli.trunk.fill import _sealing_early


@pytest.fixture
def clock(monkeypatch):
    """Its `now` is the time."""
    found = SimpleNamespace(now=100.0)
    monkeypatch.setattr(sys.modules["recycle_cli.trunk.fill"], "time", SimpleNamespace(monotonic=lambda: found.now))
    return found


def seals(clock, first, seconds, batch):
    """When a writer is told to seal, in seconds from the beginning, if each batch takes so many."""
    began, sealed = clock.now, []
    seal_early = _sealing_early(SimpleNamespace(seal=lambda: sealed.append(clock.now - began)), first)
    for _ in range(int(seconds / batch)):
        clock.now += batch
        seal_early()
    return sealed


def test_what_is_not_sealed_is_at_most_half_as_much_as_what_is_and_a_batch(clock):
    assert seals(clock, 5.0, 100, batch=1) == [5, 10, 15, 23, 35, 53, 80]
    assert seals(clock, 5.0, 100, batch=3) == [6, 12, 18, 27, 42, 63, 96]
    assert seals(clock, 5.0, 4, batch=1) == []
    assert seals(clock, 5.0, 3000, batch=300) == [300, 600, 900, 1500, 2400]


def test_without_a_first_time_the_writer_seals_alone(clock):
    assert seals(clock, None, 1000, batch=1) == []
