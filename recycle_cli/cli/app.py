"""The `recycle` command itself; `main` adds the verbs to it."""

from typing import Annotated

import typer

from recycle_cli import __version__
from recycle_cli.cli.help import Group

app = typer.Typer(
    cls=Group,
    name="recycle",
    help="Run the frozen half of a pretrained network once; train and predict from its stored activations.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"recycle {__version__}")
        raise typer.Exit


@app.callback()
def recycle(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version.", callback=_version, is_eager=True, rich_help_panel="Options"
        ),
    ] = False,
) -> None:
    """Run the frozen half of a pretrained network once; train and predict from its stored activations."""
