"""The screen: a console and single lines on stderr, lines on stdout, and whether progress and JSON are wanted."""

import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from recycle_cli.errors import StorageError
from recycle_cli.reports.words import printable

if TYPE_CHECKING:
    from rich.console import Console

WIDE = 200
"""Columns of a table at most if stderr is no terminal: a log is not a screen."""

_quiet = False
_json = False
_silent = False


def be_quiet(quiet: bool) -> None:
    """Leave progress out from now on, if `quiet` (--quiet)."""
    global _quiet
    _quiet = quiet


def is_quiet() -> bool:
    """Whether progress is left out."""
    return _quiet


def fall_silent() -> None:
    """Show nothing from now on but a last word: another process of the same command shows it."""
    global _silent
    be_quiet(True)
    _silent = True


def answer_in_json(asked: bool) -> None:
    """Print a failure as an object on stdout as well from now on, if `asked` (--json)."""
    global _json
    _json = asked


def answers_in_json() -> bool:
    """Whether a failure is printed as an object on stdout as well."""
    return _json


def console() -> "Console":
    """A console on stderr, so that stdout carries results alone."""
    from rich.console import Console

    width = None if sys.stderr.isatty() else WIDE
    return Console(stderr=True, highlight=False, soft_wrap=True, width=width, quiet=_silent)


def say(message: str, *, last: bool = False) -> None:
    """Print one line for people, on stderr. If stderr takes nothing, the work goes on without it. `last`: it is a last
    word, which a silent process has too."""
    with suppress(OSError):
        if sys.stderr is not None and (last or not _silent):
            print(printable(message), file=sys.stderr, flush=True)


def put(line: str) -> None:
    """Print one line for programs, on stdout. Raises StorageError if it cannot be written."""
    if _silent:
        return
    if sys.stdout is None:
        raise StorageError("stdout is closed, so that the result cannot be shown; what was done is kept")
    try:
        print(line, flush=True)
    except BrokenPipeError:  # nobody reads on, which is no failure
        raise
    except OSError as error:
        raise StorageError(_NOT_TAKEN.format(error.strerror or error)) from error


def flush_output() -> None:
    """Flush stdout. Raises StorageError if it cannot be written."""
    if sys.stdout is not None:
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise StorageError(_NOT_TAKEN.format(error.strerror or error)) from error


_NOT_TAKEN = "stdout cannot be written ({}), so that the result cannot be shown; what was done is kept"
