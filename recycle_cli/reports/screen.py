"""Where people read: a console on stderr, one line on it, and whether they want progress at all."""

import sys
from typing import TYPE_CHECKING

from recycle_cli.reports.words import printable

if TYPE_CHECKING:
    from rich.console import Console

WIDE = 200
"""Columns of a table at most if stderr is no terminal: a log is not a screen."""

_quiet = False


def be_quiet(quiet: bool) -> None:
    """Whether progress is left out from now on, as a command's --quiet asks."""
    global _quiet
    _quiet = quiet


def is_quiet() -> bool:
    """Whether progress is left out."""
    return _quiet


def console() -> "Console":
    """A console on stderr, so that stdout carries results alone."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True, width=None if sys.stderr.isatty() else WIDE)


def say(message: str) -> None:
    """One line for people, on stderr."""
    print(printable(message), file=sys.stderr, flush=True)
