"""Progress of long work, on stderr: a bar or a spinner on a terminal, else a line now and then."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Timer
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, Protocol

from recycle_cli.reports.screen import console, is_quiet, say
from recycle_cli.reports.words import clock, printable, size

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn, Task, TaskID

LOG_SECONDS = 30.0
"""Seconds between the lines of progress if stderr is no terminal."""

STARTING_SECONDS = 15.0
"""Seconds after which a log says what is being waited for."""

ROOMY, NARROW = 100, 70
"""A terminal of at least ROOMY columns shows all parts of a bar, one of less than NARROW only the most important."""

Unit = Literal["count", "bytes"]


class Bar:
    """Progress of long work: `update` moves it on and sets the note beside it. This class shows nothing."""

    shown = False
    """Whether somebody watches, so that it is worth counting ahead how much there is to do."""

    def update(self, advance: int = 0, *, note: str | None = None, total: int | None = None) -> None:
        """Advance by so many samples (or steps); `note` replaces the note, `total` sets a length that was unknown."""

    def tell(self, line: str) -> None:
        """Leave a line that stays, above the bar or in the log."""


class _Drawn(Bar):
    """A bar on a terminal."""

    shown = True

    def __init__(self, progress: "Progress", task: "TaskID") -> None:
        self._progress, self._task = progress, task

    def update(self, advance: int = 0, *, note: str | None = None, total: int | None = None) -> None:
        changes: dict[str, Any] = {"note": note, "total": total}
        said = {name: value for name, value in changes.items() if value is not None}
        self._progress.update(self._task, advance=advance, **said)

    def tell(self, line: str) -> None:
        self._progress.console.print(printable(line), markup=False, soft_wrap=False)


class _Logged(Bar):
    """A line in a log every so many seconds."""

    def __init__(self, description: str, total: int | None, every: float, unit: Unit) -> None:
        self._description, self._total, self._note, self._done = description, total, "", 0
        self._every, self._began, self._due = every, monotonic(), monotonic() + every
        self._before: int | None = None
        self._unit = unit

    def update(self, advance: int = 0, *, note: str | None = None, total: int | None = None) -> None:
        if self._before is None:
            self._before = advance  # a resumed run begins with the work of the earlier one, which is no measure of pace
        self._done += advance
        self._note = self._note if note is None else note
        self._total = self._total if total is None else total
        now = monotonic()
        if now >= self._due:
            self._due = now + self._every
            say(self._line(now - self._began))

    def tell(self, line: str) -> None:
        say(line)

    def _line(self, elapsed: float) -> str:
        done = self._amount(self._done)
        if self._total:
            done += f" of {self._amount(self._total)} ({self._done / self._total:.0%})"
        parts = [done, f"{clock(elapsed)} elapsed"]
        fresh = self._done - (self._before or 0)
        if self._total and fresh:
            pace = elapsed / fresh
            parts.append(f"{clock(max(0, self._total - self._done) * pace)} left")
        return f"{self._description}: {', '.join([*parts, self._note] if self._note else parts)}"

    def _amount(self, count: int) -> str:
        return size(count) if self._unit == "bytes" else f"{count:,}"


@contextmanager
def bar(
    description: str, total: int | None = None, *, every: float = LOG_SECONDS, unit: Unit = "count", stays: bool = True
) -> Iterator[Bar]:
    """Progress on stderr with the time left: a bar on a terminal, else a line every so many seconds.

    `unit` is what `total` and `update` count; a bar that does not stay is wiped away when it is done.
    """
    if is_quiet():
        yield Bar()
        return
    if not sys.stderr.isatty():
        yield _Logged(description, total, every, unit)
        return
    from rich.progress import Progress

    screen = console()
    with _alone(Progress(*_columns(screen.width, unit), console=screen, transient=not stays), is_bar=True) as progress:
        yield _Drawn(progress, progress.add_task(description, total=total, note=""))


def following(progress: Bar) -> Callable[[int, int], None]:
    """A function of the amount done so far and the total, which moves the bar there, and never back."""
    before = 0

    def follow(done: int, total: int) -> None:
        nonlocal before
        progress.update(max(0, done - before), total=total)
        before = max(before, done)

    return follow


@contextmanager
def spinner(doing: str) -> Iterator[None]:
    """Show that work of unknown length goes on: its description with a spinner on a terminal, until it is done, else a
    line if it takes long. Inside a bar nothing is shown."""
    if is_quiet():
        yield
    elif not sys.stderr.isatty():
        late = Timer(STARTING_SECONDS, say, [f"{doing} ..."])
        late.daemon = True
        late.start()
        try:
            yield
        finally:
            late.cancel()
    elif any(is_bar for _, is_bar in _on_screen):
        yield
    else:
        from rich.text import Text

        screen = console()
        status = screen.status(
            Text(f"{printable(doing)} ...", overflow="ellipsis", no_wrap=True),
            spinner="dots" if screen.encoding.startswith("utf") else "line",
        )
        with _alone(status, is_bar=False):
            yield


class _Live(Protocol):
    """Something on a terminal that is drawn again and again."""

    def start(self) -> None: ...
    def stop(self) -> None: ...


_on_screen: list[tuple[_Live, bool]] = []
"""Bars and spinners that are open, the latest last, each with whether it is a bar. Only the last is drawn."""


@contextmanager
def _alone(live: Any, *, is_bar: bool) -> Iterator[Any]:
    """Draw this bar or spinner until the block ends, and meanwhile no other."""
    if _on_screen:
        _on_screen[-1][0].stop()
    _on_screen.append((live, is_bar))
    live.start()
    try:
        yield live
    finally:
        live.stop()
        _on_screen.pop()
        if _on_screen:
            _on_screen[-1][0].start()


def _columns(width: int, unit: Unit) -> "list[ProgressColumn]":
    """The parts of a bar that fit into a terminal of this width."""
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.table import Column
    from rich.text import Text

    class Left(TimeRemainingColumn):
        """The time left, with the word `left`; empty if the total is unknown."""

        def render(self, task: "Task") -> Text:
            return Text() if task.total is None else super().render(task).append(" left")

    amount = DownloadColumn(binary_units=True) if unit == "bytes" else MofNCompleteColumn()
    note = TextColumn("{task.fields[note]}", markup=False, table_column=Column(no_wrap=True, ratio=1))
    name = TextColumn("{task.description}")
    if width < NARROW:
        short = Left(compact=True, table_column=Column(no_wrap=True, min_width=10))
        return [name, TaskProgressColumn(show_speed=False), short, note]
    if width < ROOMY:
        return [name, BarColumn(bar_width=10), amount, Left(), note]
    return [name, BarColumn(bar_width=24), amount, TimeElapsedColumn(), Left(), note]
