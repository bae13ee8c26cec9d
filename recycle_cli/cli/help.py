"""Help screens: `--help` shows the options that most runs need, `--help-all` every one."""

from copy import copy
from typing import Any

import typer
from typer.core import TyperCommand, TyperOption

ENVIRONMENT = "An option can also be set by a variable of the environment: --max-length by RECYCLE_MAX_LENGTH."

FEW = 12
"""A command of so few parameters shows all of them."""


class Command(TyperCommand):
    """A command with `--help-all` beside `--help`, which leaves hidden options out."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if len(self.params) <= FEW:
            self.params = [_unhidden(one) for one in self.params]
        self.epilog = ENVIRONMENT
        self._hidden = sum(getattr(one, "hidden", False) for one in self.params)
        self._help_all = TyperOption(
            param_decls=["--help-all"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=self._show_all,
            help=f"Show {self._hidden} more options and exit.",
            rich_help_panel="Output",
        )

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters, `--help` and, where there is more to show, `--help-all`."""
        return [*super().get_params(ctx), *([self._help_all] if self._hidden else [])]

    def get_help_option(self, ctx: Any) -> Any:
        """`--help`, in the last panel of the screen."""
        found: Any = super().get_help_option(ctx)
        if found is not None:
            found.rich_help_panel = "Output"
        return found

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """The screen of `--help`; its last words say how to see the rest."""
        screen = copy(self)
        if self._hidden:
            more = f"These are the usual options; {ctx.command_path} --help-all shows {self._hidden} more."
            screen.epilog = f"{more} {ENVIRONMENT}"
        TyperCommand.format_help(screen, ctx, formatter)

    def _show_all(self, ctx: Any, _: Any, asked: bool) -> None:
        if asked and not ctx.resilient_parsing:
            screen = copy(self)
            screen.params = [_unhidden(one) for one in self.params]
            TyperCommand.format_help(screen, ctx, ctx.make_formatter())
            raise typer.Exit


def _unhidden(parameter: Any) -> Any:
    shown = copy(parameter)
    shown.hidden = False
    return shown
