"""Help screens: the usual options on one screen, every option behind --help-all, good at any width."""

import os
import re
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from recycle_cli.cli.help import FEW
from recycle_cli.cli.main import app
from tests.commands_page import leaves


def is_hidden(one):
    return getattr(one, "hidden", False)


COMMANDS = leaves(typer.main.get_command(app).commands)
LARGE = [name for name, one in COMMANDS.items() if len(one.params) > FEW and any(map(is_hidden, one.params))]


def screen(command, option, width=80):
    done = CliRunner().invoke(app, [*command.split(), option], env={"COLUMNS": str(width), "TERMINAL_WIDTH": None})
    assert done.exit_code == 0, done.output
    return [line.rstrip() for line in done.output.splitlines()]


def options(lines):
    return {name for line in lines for name in re.findall(r"^  (?:-h, )?(--[a-z-]+)", line)}


@pytest.mark.parametrize("command", ["precompute", "finetune", "predict", "plan"])
def test_the_usual_options_fit_on_one_screen(command):
    assert len(screen(command, "--help")) <= 45


def test_finetune_shows_what_nine_of_ten_runs_need():
    shown = options(screen("finetune", "--help"))
    assert shown >= {"--output", "--eval", "--task", "--cut", "--epochs", "--learning-rate", "--resume", "--help-all"}
    assert not shown & {"--adapter-rank", "--margin", "--mixup", "--segment-bytes"}


@pytest.mark.parametrize("command", LARGE)
def test_the_screen_says_how_to_see_the_rest(command):
    assert f"{command} --help-all shows" in " ".join(screen(command, "--help"))


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_option_is_on_the_screen_of_all(command):
    shown = options(screen(command, "--help-all" if command in LARGE else "--help", 200))
    assert shown == {one.opts[0] for one in COMMANDS[command].params if one.param_type_name == "option"}


@pytest.mark.parametrize("command", [[], ["store"]])
def test_a_group_without_a_command_shows_its_commands_and_is_no_mistake(command):
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0
    assert done.output == CliRunner().invoke(app, [*command, "--help"]).output


def test_every_panel_is_on_the_screen_of_all():
    titles = [line for line in screen("finetune", "--help-all") if re.fullmatch(r"[A-Z][a-z ]+", line)]
    panels = ["Arguments", "Data", "Model and cut", "Training", "Freezing", "Task", "Adapters", "Images", "Store"]
    assert titles == [*panels, "Output"]


def test_a_group_lists_its_commands_without_a_parser_of_markdown():
    shown = " ".join(screen("store", "--help"))
    assert all(f"  {name} " in shown for name in ("info", "verify", "gc", "export"))
    code = (
        "import sys; from recycle_cli.cli.main import app; app(['--help'], standalone_mode=False); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "precompute" in done.stdout
    assert "markdown_it" not in done.stdout


@pytest.mark.parametrize(
    "environment", [{"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}]
)
def test_a_terminal_that_knows_ascii_alone_is_told_everything(environment):
    command = [sys.executable, "-m", "recycle_cli"]
    env = {**os.environ, **environment}
    done = subprocess.run([*command, "finetune", "--help-all"], capture_output=True, env=env, check=True)
    assert b"--learning-rate" in done.stdout
    done = subprocess.run([*command, "caf\u00e9", "--json"], capture_output=True, env=env)
    assert done.returncode == 2
    assert done.stdout.isascii()
    (line,) = done.stderr.splitlines()
    assert line.startswith(b"recycle: No such command 'caf")


@pytest.mark.parametrize("width", [50, 80, 200])
@pytest.mark.parametrize("command", ["", "store", *COMMANDS])
def test_no_line_is_wider_than_the_terminal_and_no_word_is_cut(command, width):
    lines = screen(command, "--help-all" if command in LARGE else "--help", width)
    assert max(map(len, lines)) <= width
    assert not [line for line in lines if "…" in line]


@pytest.mark.parametrize("command", LARGE)
def test_no_default_is_empty(command):
    assert "default: ]" not in " ".join(screen(command, "--help-all", 200))


@pytest.mark.parametrize(
    ("command", "said", "screen"),
    [
        (("finetune", "data", "--epochs", "x"), "--epochs: 'x' is not", "--help"),
        (("finetune", "data", "--ladder-width", "x"), "--ladder-width: 'x' is not", "--help-all"),
        (("finetune", "data", "--epochs"), "'--epochs' requires an argument", "--help"),
        (("finetune", "data", "--ladder-width"), "'--ladder-width' requires an argument", "--help-all"),
        (("finetune", "data", "--nowhere"), "No such option: --nowhere", "--help-all"),
        (("finetune",), "Missing argument", "--help"),
        (("store", "info", "s", "--nowhere"), "No such option: --nowhere", "--help"),
        (("nowhere",), "No such command", "--help"),
    ],
)
def test_an_error_names_the_screen_that_lists_what_it_is_about(recycle, command, said, screen):
    done = recycle(*command)
    assert done.code == 2
    assert said in done.err
    assert done.err.strip().endswith(f"(see {screen})")
