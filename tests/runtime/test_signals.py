"""A first signal waits for the safe point, a second one does not."""

import os
import signal

import pytest

from recycle_cli.errors import Interrupted
from recycle_cli.runtime.signals import deferred_signals, raise_on_signals


@pytest.fixture(autouse=True)
def _handlers():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_raise_interrupted(number):
    raise_on_signals()
    with pytest.raises(Interrupted):
        os.kill(os.getpid(), number)


def test_a_first_signal_waits_and_a_second_does_not():
    with deferred_signals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.asked
        with pytest.raises(Interrupted):
            signals.stop_here()
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGTERM)


def test_the_handlers_before_come_back():
    raise_on_signals()
    with deferred_signals():
        pass
    with pytest.raises(Interrupted):
        os.kill(os.getpid(), signal.SIGINT)


def test_a_second_signal_that_follows_at_once_may_be_the_first_again():
    with deferred_signals(grace=60) as signals:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.asked
        signals.at -= 61
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGINT)
