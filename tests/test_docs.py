"""Every command and option is documented, and nothing is documented that is not there."""

import re
from pathlib import Path

import pytest
import typer

from recycle_cli.cli.main import app
from tests.commands_page import leaves

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
COMMANDS = leaves(typer.main.get_command(app).commands)
GENERAL = {"--help", "--help-all", "--version", "--install-completion", "--show-completion"}
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")


def section(command):
    """The page's text from the command's heading to the next."""
    found = re.search(rf"^## recycle {command}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"docs/commands.md has no section `## recycle {command}`"
    return found[1]


def options(command):
    """Every long name of every option, `--no-...` included."""
    names = [name for one in COMMANDS[command].params for name in (*one.opts, *one.secondary_opts)]
    return {name for name in names if name.startswith("--")}


def listed(command):
    """Options of the first column of the section's table."""
    rows = [line.split("|")[1] for line in section(command).splitlines() if line.startswith("| `--")]
    return {name for row in rows for name in OPTION.findall(row)}


def test_every_command_has_a_section_and_the_other_way_round():
    assert re.findall(r"^## recycle (\S.*)$", PAGE, re.MULTILINE) == list(COMMANDS)


@pytest.mark.parametrize("command", list(COMMANDS))
def test_the_table_of_options_is_complete_and_has_no_other(command):
    assert listed(command) == options(command)


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_option_reads_its_variable(command):
    for one in COMMANDS[command].params:
        name = next((name for name in one.opts if name.startswith("--")), None)
        if name is not None:
            assert one.envvar == f"RECYCLE_{name[2:].replace('-', '_').upper()}"
            assert f"`{one.envvar}`" in section(command)


@pytest.mark.parametrize("command", list(COMMANDS))
def test_defaults_and_help_are_as_the_page_says(command):
    for one in COMMANDS[command].params:
        name = next((name for name in one.opts if name.startswith("--")), None)
        if name is None:
            continue
        (row,) = (line for line in section(command).splitlines() if re.match(rf"\| `{name}[`/]", line))
        assert one.help.replace("|", "\\|") in row, f"{name}: {one.help}"
        if isinstance(one.default, int | float | str) and not isinstance(one.default, bool):
            assert f"| `{one.default}` |" in row, f"{name}: {one.default}"


@pytest.mark.parametrize("page", ["README.md", "docs/commands.md"])
def test_no_page_speaks_of_an_option_that_is_not_there(page):
    """In lines that call `recycle`; other programs have options of their own."""
    text = (ROOT / page).read_text(encoding="utf-8").replace("\\\n", " ")
    known = {name for command in COMMANDS for name in options(command)} | GENERAL
    for line in text.splitlines():
        for call in re.findall(r"recycle (\w+) ([^`|&;]*)", line):
            command, rest = call
            if command in COMMANDS:
                assert set(OPTION.findall(rest)) <= options(command) | {"--help"}, line
    assert set(OPTION.findall(PAGE)) <= known


def test_the_readme_names_every_command_and_the_page():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "docs/commands.md" in readme
    for command in COMMANDS:
        assert f"recycle {command}" in readme, command


ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_the_files_that_the_page_on_the_architecture_names_are_there():
    paths = set(re.findall(r"`([a-z_]+/[a-z_/]+\.py)`", ARCHITECTURE))
    assert paths
    assert not [path for path in paths if not any((ROOT / above / path).exists() for above in ("", "recycle_cli"))]


@pytest.mark.parametrize("first", ["class Tagging", "TAGGING =", "class QuestionForm", "class Numbers", "TABLE ="])
def test_the_examples_of_the_page_on_the_architecture_are_those_of_the_tests(first):
    blocks = re.findall(r"```python\n(.*?)\n```", ARCHITECTURE, re.DOTALL)
    (example,) = (part for block in blocks for part in block.split("\n\n\n") if re.search(f"^{first}", part, re.M))
    assert example in (ROOT / "tests" / "toys.py").read_text(encoding="utf-8")
