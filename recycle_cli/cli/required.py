"""The end of a command whose figures were required to be good enough, with --require."""

from collections.abc import Callable
from typing import TypeVar

import typer

from recycle_cli.errors import BarError
from recycle_cli.reports import say

R = TypeVar("R")


def reported(run: Callable[[], R]) -> tuple[R, BarError | None]:
    """The report of a command, and what it missed of what was required."""
    try:
        return run(), None
    except BarError as missed:
        return missed.report, missed


def end(missed: BarError | None) -> None:
    """End the command with a line and its exit code if something was missed. The report has been shown."""
    if missed is not None:
        # One JSON object at most: what the error boundary would print is part of the report already.
        say(f"recycle: {missed}")
        raise typer.Exit(missed.exit_code)
