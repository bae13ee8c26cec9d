"""What a command shows: a table and progress on stderr for people, one JSON object on stdout for programs."""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from time import monotonic
from typing import TYPE_CHECKING, Any

WIDE = 200

LOG_SECONDS = 30.0
"""Seconds between the lines that tell how far something long is, if stderr is no terminal."""

_quiet = False

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID


def be_quiet(quiet: bool) -> None:
    """Whether progress is left out from now on, as a command's --quiet asks."""
    global _quiet
    _quiet = quiet


def console() -> "Console":
    """A console on stderr, so that stdout carries results alone."""
    from rich.console import Console

    # Where no width is known, tables are as wide as they need: a log is not a screen.
    return Console(stderr=True, highlight=False, soft_wrap=True, width=None if sys.stderr.isatty() else WIDE)


def say(message: str) -> None:
    """One line for people, on stderr."""
    print(printable(message), file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """The text without marks that would steer a terminal: names in stores and corpora are other people's."""
    return "".join(mark if mark.isprintable() or mark in "\n\t" else "\N{REPLACEMENT CHARACTER}" for mark in text)


def show(report: Any, *, as_json: bool) -> None:
    """Show a report dataclass: a table on stderr, or with `as_json` one JSON object on stdout."""
    fields: dict[str, Any] = asdict(report)
    if as_json:
        print(json.dumps(fields, allow_nan=False, default=str), flush=True)
        return
    lists = {name: value for name, value in fields.items() if isinstance(value, list) and _are_records(value)}
    for name, records in lists.items():
        show_rows(name, _level(records))
    show_fields(type(report).__name__, {name: value for name, value in fields.items() if name not in lists})


def _are_records(values: list[Any]) -> bool:
    return bool(values) and all(isinstance(value, Mapping) for value in values)


def _level(records: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Records with the same fields each, those within fields included, lists left out."""
    flat = [{name: value for name, value in _leaves(record) if not isinstance(value, list)} for record in records]
    names = dict.fromkeys(name for record in flat for name in record)
    return [{name: record.get(name, "") for name in names} for record in flat]


def show_fields(title: str, fields: Mapping[str, Any]) -> None:
    """Show named values as a table on stderr."""
    console().print(_table(title, fields))


def show_rows(title: str, rows: list[Mapping[str, Any]], notes: str = "") -> None:
    """Show records of equal fields as a table on stderr, one line each, with a caption below."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, title_justify="left", caption=notes or None, caption_justify="left")
    for name in rows[0]:
        table.add_column(
            escape(printable(name.replace("_", " "))), justify="right" if _is_number(rows[0][name]) else "left"
        )
    for row in rows:
        table.add_row(*(escape(human(name, value)) for name, value in row.items()))
    console().print(table)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _table(title: str, fields: Mapping[str, Any]) -> Any:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in _leaves(fields):
        table.add_row(escape(printable(name.replace("_", " "))), escape(human(name, value)))
    return table


def _leaves(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name} ")
        elif value is not None and value != []:
            yield f"{prefix}{name}", value


def human(name: str, value: Any) -> str:
    """A value as people read it: bytes in binary units, seconds to a fitting digit, shares as percentages."""
    words = name.replace(" ", "_").split("_")
    if value is None:
        return "unknown"
    if isinstance(value, list | tuple):
        return ", ".join(human(name, item) for item in value)
    if not _is_number(value):
        return printable(str(value))
    if "share" in words:
        return f"{value:.1%}"
    if "bytes" in words and "per" not in words:
        return size(value)
    if words[-1] == "seconds":
        return f"{value:,.3g} s" if value < 100 else f"{value:,.0f} s"
    if isinstance(value, int):
        return f"{value:,}"
    if abs(value) >= 10:
        return f"{value:,.1f}"
    return f"{value:,.4f}" if abs(value) >= 1e-3 or not value else f"{value:.3g}"


def size(count: float) -> str:
    """A number of bytes in binary units, such as `1.5 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(count) < 1024 or unit == "TiB":
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1024
    raise AssertionError("unreachable")


class Bar:
    """Progress of something long; `update` moves it on and sets the words beside it. This one shows nothing."""

    shown = False
    """Whether somebody watches, so that it is worth counting ahead how much there is to do."""

    def update(self, advance: int = 0, *, note: str | None = None, total: int | None = None) -> None:
        """Advance by so many samples (or steps); `note` replaces the words, `total` the length if it was unknown."""


class _Drawn(Bar):
    """A bar on a terminal."""

    shown = True

    def __init__(self, progress: "Progress", task: "TaskID") -> None:
        self._progress, self._task = progress, task

    def update(self, advance: int = 0, *, note: str | None = None, total: int | None = None) -> None:
        changes: dict[str, Any] = {"note": note, "total": total}
        said = {name: value for name, value in changes.items() if value is not None}
        self._progress.update(self._task, advance=advance, **said)


class _Logged(Bar):
    """A line in a log every so many seconds."""

    def __init__(self, description: str, total: int | None, every: float) -> None:
        self._description, self._total, self._note, self._done = description, total, "", 0
        self._every, self._began, self._due = every, monotonic(), monotonic() + every
        self._before: int | None = None

    def update(self, advance: int = 0, *, note: str | None = None, total: int | None = None) -> None:
        if self._before is None:
            self._before = advance  # of a resumed run this is what the earlier one did: no measure of the pace
        self._done += advance
        self._note = self._note if note is None else note
        self._total = self._total if total is None else total
        now = monotonic()
        if now >= self._due:
            self._due = now + self._every
            say(self._line(now - self._began))

    def _line(self, elapsed: float) -> str:
        parts = [f"{self._done:,}" + (f" of {self._total:,} ({self._done / self._total:.0%})" if self._total else "")]
        parts.append(f"{clock(elapsed)} elapsed")
        fresh = self._done - (self._before or 0)
        if self._total and fresh:
            pace = elapsed / fresh
            parts.append(f"{clock(max(0, self._total - self._done) * pace)} left")
        return f"{self._description}: {', '.join([*parts, self._note] if self._note else parts)}"


def clock(seconds: float) -> str:
    """A time as `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


@contextmanager
def bar(description: str, total: int | None = None, *, every: float = LOG_SECONDS) -> Iterator[Bar]:
    """Progress on stderr with the time left: a bar on a terminal, else a line every so many seconds."""
    if _quiet:
        yield Bar()
        return
    if not sys.stderr.isatty():
        yield _Logged(description, total, every)
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console()) as progress:
        yield _Drawn(progress, progress.add_task(description, total=total, note=""))
