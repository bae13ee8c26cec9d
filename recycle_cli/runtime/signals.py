"""Handle Ctrl-C and SIGTERM: at once by default, or at the next safe point while steps must not be left half done."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from recycle_cli.errors import Interrupted

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class Deferred:
    """Whether a signal has arrived. The loop asks at each safe point."""

    asked: bool = False

    def stop_here(self) -> None:
        """Raise Interrupted if a signal has arrived."""
        if self.asked:
            raise Interrupted


def raise_on_signals() -> None:
    """Make Ctrl-C and SIGTERM raise Interrupted in the main thread from now on."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted

    for number in _SIGNALS:
        signal.signal(number, interrupt)


@contextmanager
def deferred_signals() -> Iterator[Deferred]:
    """Only note the first signal inside the block; a second one raises Interrupted at once."""
    deferred = Deferred()
    if threading.current_thread() is not threading.main_thread():
        yield deferred
        return

    def note(number: int, frame: FrameType | None) -> None:
        if deferred.asked:
            raise Interrupted
        deferred.asked = True

    before = {number: signal.signal(number, note) for number in _SIGNALS}
    try:
        yield deferred
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
