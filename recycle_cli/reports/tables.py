"""Results of a command: tables on stderr for people, one JSON object on stdout for programs."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from recycle_cli.errors import RecycleError
from recycle_cli.reports.screen import console, put
from recycle_cli.reports.words import human, is_number, printable

SHORTEST = 16
"""Columns of a terminal that a text in a table needs at least: longer ones go on in the next line."""


def show(report: Any, title: str, *, as_json: bool, error: RecycleError | None = None) -> None:
    """Show a report, a dataclass or a mapping: a table on stderr, or with `as_json` one JSON object on stdout.

    `error`: what went wrong although there is a report; the object then has it as well.
    """
    fields: Mapping[str, Any] = report if isinstance(report, Mapping) else asdict(report)
    if as_json:
        show_json(fields, error)
    else:
        show_fields(title, fields)


def show_json(fields: Mapping[str, Any], error: RecycleError | None = None) -> None:
    """Print one JSON object on stdout, with the error if there is one."""
    told = {} if error is None else error_in_json(str(error), type(error).__name__, error.exit_code)
    put(json.dumps({**fields, **told}, allow_nan=False, default=str))


def error_in_json(message: str, kind: str, code: int) -> dict[str, Any]:
    """A failure as the JSON object of a command has it. `kind`: the name of its class."""
    return {"error": {"kind": kind, "message": message, "exit_code": code}}


def show_fields(title: str, fields: Mapping[str, Any], names: Mapping[str, str] | None = None) -> None:
    """Show named values as a table on stderr. `names`: what people call some of them."""
    named = {(names or {}).get(name, name): value for name, value in fields.items()}
    with suppress(OSError):
        console().print(_pairs(title, [named]))


def show_rows(title: str, rows: list[Mapping[str, Any]], notes: str = "") -> None:
    """Show records of equal fields as a table on stderr, one line each, with a caption below.

    If the terminal is too narrow for that, the fields of each record stand below one another.
    """
    from rich.markup import escape
    from rich.table import Table

    columns = [_Column(name, [row[name] for row in rows]) for name in rows[0]]
    screen = console()
    spare = screen.width - sum(one.least for one in columns) - 3 * len(columns) - 1
    if spare < 0:
        with suppress(OSError):
            screen.print(_pairs(title, rows, notes))
        return
    table = Table(title=title, title_justify="left", caption=notes or None, caption_justify="left")
    for one in columns:
        justify: Any = "right" if one.numeric else "left"
        more = min(one.wanted - one.least, spare)
        table.add_column(escape(one.title), justify=justify, overflow="fold", width=one.least + more)
        spare -= more
    for cells in zip(*(one.cells for one in columns), strict=True):
        table.add_row(*map(escape, cells))
    with suppress(OSError):
        screen.print(table)


class _Column:
    """A column of a table: its title, its cells as people read them, and the width that it needs."""

    def __init__(self, name: str, values: Sequence[Any]) -> None:
        self.title = printable(name.replace("_", " "))
        self.cells = [human(name, value) for value in values]
        self.numeric = any(map(is_number, values))

    @property
    def least(self) -> int:
        """Numbers and the words of the title are not broken, longer texts may be."""
        longest = _widest(self.cells)
        return max(_widest(self.title.split()), longest if self.numeric else min(longest, SHORTEST))

    @property
    def wanted(self) -> int:
        """The width in which nothing is broken."""
        return _widest([self.title, *self.cells])


def _widest(texts: Iterable[str]) -> int:
    """Columns of a terminal that the widest text takes; some letters take two."""
    from rich.cells import cell_len

    return max(map(cell_len, texts), default=0)


def _pairs(title: str, records: Iterable[Mapping[str, Any]], notes: str = "") -> Any:
    """A table of names and values; a line between two records."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, title_justify="left", show_header=False, caption=notes or None, caption_justify="left")
    table.add_column(style="bold", overflow="fold")
    table.add_column(overflow="fold")
    for fields in records:
        for name, value in _leaves(fields):
            table.add_row(escape(printable(name.replace("_", " "))), escape(human(name, value)))
        table.add_section()
    return table


def _leaves(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name} ")
        elif value is not None and value not in ("", []):
            yield f"{prefix}{name}", value
