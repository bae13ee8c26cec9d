"""Help screens: `--help` shows the options that most runs need, `--help-all` every one."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

if TYPE_CHECKING:
    from rich.text import Text

    Row = tuple[str, Text, Text]
    """A panel, the name of what stands in it, and what that does."""

FEW = 12
"""A command of so few parameters shows all of them."""

WIDEST = 110
"""Columns of a screen at most: longer lines are hard to read."""

ENVIRONMENT = "Every option can also be set by an environment variable"


class Command(TyperCommand):
    """A command whose `--help` leaves hidden options out, and whose `--help-all` shows them as well."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        few = len(self.params) <= FEW
        self._usual = [one for one in self.params if few or not getattr(one, "hidden", False)]
        self.more = len(self.params) - len(self._usual)
        self._help_all = TyperOption(
            param_decls=["--help-all"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=self._show_all,
            help=f"Show {self.more} more options and exit.",
            rich_help_panel="Output",
        )

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Complete the options that `--help` leaves out, too."""
        found = super().shell_complete(ctx, incomplete)
        if incomplete.startswith("-"):
            from recycle_cli.cli.completion import hidden_options

            found += hidden_options(self, ctx, incomplete)
        return found

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters, `--help` and `--help-all`, which is not listed if `--help` shows everything."""
        return [*super().get_params(ctx), self._help_all]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the screen of `--help`; its last words say how to see the rest."""
        more = f"These are the usual options; {ctx.command_path} --help-all shows {self.more} more. "
        shown = [*self._usual, self._help_all] if self.more else self._usual
        _show(self, ctx, map(_row, shown), (more if self.more else "") + _by_variables(shown))

    def _show_all(self, ctx: Any, _: Any, asked: bool) -> None:
        if asked and not ctx.resilient_parsing:
            _show(self, ctx, map(_row, self.params), _by_variables(self.params))
            raise typer.Exit


class Group(TyperGroup):
    """A group of commands. Typer's own screen would import a Markdown parser, which takes longer than all the rest."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Without a command, show the screen: that is no mistake."""
        return super().parse_args(ctx, args or ["--help"])

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the commands, then the group's own options."""
        rows: list[Row] = [("Commands", _styled(name), _plain(one.help)) for name, one in self.commands.items()]
        rows += (_row(one, "Options") for one in self.params)
        _show(self, ctx, rows, f"{ctx.command_path} COMMAND --help shows the options of a command.")


def _show(command: TyperCommand | TyperGroup, ctx: Any, rows: Iterable["Row"], end: str) -> None:
    """Print usage, purpose and the rows by panel, in two columns that all panels share."""
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    console.width = min(console.width, WIDEST)
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(max_width=max(12, console.width * 2 // 5), overflow="fold")
    table.add_column(ratio=1, overflow="fold")
    title = None
    for panel, name, about in rows:
        if panel != title:
            title = panel
            table.add_row(Text(panel, style="bold"), "")
        table.add_row(Padding(name, (0, 0, 0, 2)), about)
    usage = " ".join(command.collect_usage_pieces(ctx))
    console.print(Text.assemble("Usage: ", (ctx.command_path, "bold"), f" {usage}"), "", sep="\n")
    console.print(_plain(command.help), "", sep="\n")
    console.print(table, Text(""), Text(end), sep="\n")


def _by_variables(options: Iterable[Any]) -> str:
    """How options are set by environment variables, with the first of these as the example."""
    first = next((one for one in options if getattr(one, "envvar", None)), None)
    return ENVIRONMENT + ("." if first is None else f", such as {first.opts[0]} by {first.envvar}.")


def _row(one: Any, panel: str = "Output") -> "Row":
    """A parameter under the panel that it names, or else under this one."""
    panel = "Arguments" if one.param_type_name == "argument" else getattr(one, "rich_help_panel", None) or panel
    return panel, _name(one), _help(one)


def _plain(text: str | None) -> "Text":
    from rich.text import Text

    return Text(" ".join((text or "").split()))


def _styled(name: str) -> "Text":
    from rich.text import Text

    return Text(name, style="cyan")


def argument_name(one: Any) -> str:
    """What an argument is called, without the brackets around one that may be left out."""
    name = str(one.metavar or one.name.upper())
    return name[1:-1] if name.startswith("[") and name.endswith("]") else name


def _name(one: Any) -> "Text":
    """`--epochs INT`; the name of an argument."""
    from rich.text import Text

    if one.param_type_name == "argument":
        return _styled(argument_name(one))
    names = ", ".join(sorted((*one.opts, *one.secondary_opts), key=len))
    kind = one.type.name.split()[0]
    word = "" if one.is_flag or kind == "choice" else {"str": "TEXT", "integer": "INT"}.get(kind, kind.upper())
    return Text.assemble((names, "cyan"), " " * bool(word), (word, "yellow"))


def _help(one: Any) -> "Text":
    """What a parameter does, its choices and its default."""
    from rich.text import Text

    notes = "; ".join(_notes(one))
    return Text.assemble(one.help or "", " " * bool(notes), (f"[{notes}]" if notes else "", "dim"))


def _notes(one: Any) -> Iterator[str]:
    if choices := getattr(one.type, "choices", None):
        yield ", ".join(map(str, choices))
    if one.required and one.param_type_name == "option":
        yield "required"
    elif isinstance(one.default, list | tuple):
        if one.default:
            yield f"default: {' '.join(map(str, one.default))}"
    elif one.default is not None and one.default is not False:
        yield f"default: {one.default}" if one.default is not True else "default: on"
