"""Completion in a shell of what `--help` does not show."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any


def hidden_options(command: Any, context: Any, incomplete: str) -> Iterator[Any]:
    """The names, beginning like this, of options that are hidden and were not given yet, as Typer's own items."""
    for one in command.params:
        source = context.get_parameter_source(one.name)
        given = source is not None and source.name == "COMMANDLINE" and not getattr(one, "multiple", False)
        if getattr(one, "hidden", False) and not given:
            for name in (*one.opts, *one.secondary_opts):
                if name.startswith(incomplete):
                    yield SimpleNamespace(value=name, type="plain", help=one.help)
