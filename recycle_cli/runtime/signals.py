"""Handle Ctrl-C and SIGTERM: at once by default, or at the next safe point while steps must not be left half done.

A signal that comes while an earlier one is being obeyed ends the process on the spot, with the message and the exit
code that the earlier one would have had: whatever is on the disk is as after any crash.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType

from recycle_cli.errors import Interrupted

INTERRUPTED = "interrupted; give the same command again: what is on the disk already is not done twice"

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class _Raised:
    """Whether a signal has raised Interrupted, which is on its way to the command line."""

    already: bool = False


_raised = _Raised()


@dataclass
class Deferred:
    """Whether a signal has arrived, and when. The loop asks at each safe point."""

    asked: bool = False
    at: float = 0.0

    def stop_here(self, said: str = "") -> None:
        """Raise Interrupted, with these words, if a signal has arrived."""
        if self.asked:
            raise Interrupted(said)


def end_on_signals() -> None:
    """Make Ctrl-C and SIGTERM end the process on the spot, with one line, while there is nothing to clean up."""
    _handle(_end)


def raise_on_signals() -> None:
    """Make Ctrl-C and SIGTERM raise Interrupted in the main thread from now on; a second one ends the process."""
    _raised.already = False
    _handle(_interrupt)


def ignore_signals() -> None:
    """Make Ctrl-C and SIGTERM do nothing, while the last line of a command is written."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def end_quietly_on_signals(code: int) -> None:
    """Make Ctrl-C and SIGTERM end the process on the spot with this code: all is done and said."""
    _handle(lambda number, frame: os._exit(code))


@contextmanager
def deferred_signals(grace: float = 0.0) -> Iterator[Deferred]:
    """Only note the first signal inside the block; a second one raises Interrupted at once.

    grace  seconds in which a second one is taken for the first again: a terminal and a launcher both send Ctrl-C
    """
    deferred = Deferred()
    if threading.current_thread() is not threading.main_thread():
        yield deferred
        return

    def note(number: int, frame: FrameType | None) -> None:
        if deferred.asked and time.monotonic() < deferred.at + grace:
            return
        if deferred.asked and signal.Signals(number) in commands:
            _interrupt(number, frame)  # the command's: a third one ends the process
        if deferred.asked:
            raise Interrupted
        deferred.asked, deferred.at = True, time.monotonic()

    before = {number: signal.getsignal(number) for number in _SIGNALS}
    commands = [number for number, handler in before.items() if handler is _interrupt]
    _handle(note)
    try:
        yield deferred
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def interrupted_as(said: str) -> Iterator[None]:
    """Raise Interrupted with these words if the block is interrupted, whatever words it had until then."""
    try:
        yield
    except Interrupted:
        raise Interrupted(said) from None


def _handle(handler: "signal._HANDLER") -> None:
    for number in _SIGNALS:
        signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    if _raised.already:
        _end(number, frame)
    _raised.already = True
    raise Interrupted


def _end(number: int, frame: FrameType | None) -> None:
    ignore_signals()
    with suppress(OSError):
        os.write(2, f"recycle: {INTERRUPTED}\n".encode())
    os._exit(Interrupted.exit_code)
