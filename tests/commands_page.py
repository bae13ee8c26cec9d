"""Write docs/commands.md anew from the commands themselves: `python -m tests.commands_page`."""

import re
from pathlib import Path
from typing import Any

import typer

from recycle_cli.cli.help import argument_name
from recycle_cli.cli.main import app

HEAD = """# Commands

Every command shows its result as a table on stderr, and with `--json` as exactly one JSON object on stdout; a failure
is one line on stderr, and with `--json` an object with the field `error` (`kind`, `message`, `exit_code`). Progress is
shown on stderr: a bar on a terminal, and elsewhere, as in a log, one line every 30 seconds; a training leaves a line
for each epoch in both. With `--quiet` there is none of it, and of a training's two tables the one of its epochs goes,
too: what is left is the result, and notes that change what it means.
Every option can be given by its environment variable instead; an option that may be repeated takes several values
there, separated by spaces. `--config FILE.toml` gives options by their names (`epochs = 4`, `cut = ["2", "4"]`), and
arguments in lower case (`data = "train.csv"`); the command line comes first, then the environment, then the file, and a
key that is no option is an error. A variable that is nearly that of an option, such as `RECYCLE_EPOHCS`, is told.
`recycle --install-completion` completes commands and options in your shell. `--help` shows the options that most runs
need, and `--help-all` shows every option.

A STORE is a folder, or a URL: `s3://`, `gs://` and `az://`, with credentials from the environment alone (such as
`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION` and, for another server than the provider's,
`AWS_ENDPOINT_URL`), and `http(s)://` to read only; they need `pip install 'recycle-cli[remote]'`. A URL is repeated in
messages and reports, so one with a query is refused: for `http(s)://`, `RECYCLE_URL_QUERY` is sent as the query of each
request and shown nowhere. A web server that redirects to another host is refused. With `RECYCLE_CACHE` set to a folder,
what was read from a URL is kept in its folder `recycle-blocks-1`, at most `RECYCLE_CACHE_BYTES` of it (10 GiB unless
set), for all commands and processes together; what was used least recently goes first, and other files stay.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | there was not enough memory, or a shard ended each of its workers on a cluster |
| 2 | an option, or a combination of options, that cannot work |
| 3 | input data or a model that cannot be used |
| 4 | a store or a run that does not fit, is damaged, or cannot be written |
| 5 | activations that the store lacks |
| 6 | a bar that you set was not met |
| 7 | `store verify` could not read a part of the store, so that nobody knows whether it is damaged |
| 8 | another of the processes that train together has ended |
| 130 | interrupted by Ctrl-C or SIGTERM; the same command goes on (`finetune` with `--resume`) |
| 141 | whoever read stdout ended early, as `head` does |
"""


PAGE = Path(__file__).parents[1] / "docs" / "commands.md"


def leaves(commands: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Every command by its whole name, those of groups too: `precompute`, `store info`."""
    found: dict[str, Any] = {}
    for name, command in commands.items():
        inner = getattr(command, "commands", None)
        found |= {f"{before}{name}": command} if inner is None else leaves(inner, f"{before}{name} ")
    return found


COMMANDS = leaves(typer.main.get_command(app).commands)


def page(old: str) -> str:
    """The whole page; what is written by hand between a command's first line and its tables stays as in `old`."""
    return "\n".join([HEAD, *(section(name, one, old) for name, one in COMMANDS.items())]).rstrip() + "\n"


def section(name: str, command: Any, old: str) -> str:
    """A command: what it does, its arguments, its options."""
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if any(option.startswith("--") for option in one.opts)]
    lines = [f"## recycle {name}", "", " ".join((command.help or "").split()), "", *by_hand(name, old)]
    if arguments:
        lines += ["| argument | |", "|---|---|", *map(argument_row, arguments), ""]
    return "\n".join(
        [*lines, "| option | | default | environment |", "|---|---|---|---|", *map(option_row, options), ""]
    )


def by_hand(name: str, old: str) -> list[str]:
    """The paragraphs and tables of a section of the old page between its first line and its generated tables."""
    found = re.search(
        rf"^## recycle {name}\n\n[^\n]*\n\n(.*?)^\| (?:argument|option) \|", old, re.MULTILINE | re.DOTALL
    )
    return [*found[1].rstrip().split("\n"), ""] if found and found[1].strip() else []


def argument_row(one: Any) -> str:
    return f"| `{argument_name(one)}` | {cell(one.help)}{'' if one.required else ' (optional)'} |"


def option_row(one: Any) -> str:
    names = [name for name in one.opts if name.startswith("--")]
    spelled = " / ".join(map(code, [*names, *one.secondary_opts]))
    return f"| {spelled} | {cell(one.help)} | {default(one)} | `{one.envvar}` |"


def default(one: Any) -> str:
    if isinstance(one.default, bool):
        return "on" if one.default else "off"
    if isinstance(one.default, list | tuple):
        return code(" ".join(map(str, one.default))) if one.default else ""
    if isinstance(one.default, int | float | str):
        return code(one.default)
    return "required" if one.required else ""


def code(value: Any) -> str:
    return f"`{value}`"


def cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
