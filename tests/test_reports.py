"""Progress in a log and on a terminal, and tables of any width."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from time import sleep

import pytest
from rich.console import Console

from recycle_cli.reports import bar, be_quiet, counted, human, progress, show_fields, show_rows, spinner, tables


@pytest.fixture(autouse=True)
def time(monkeypatch):
    """The clock, which stands still between calls of what it returns; quiet is off afterwards."""
    now = [1000.0]
    monkeypatch.setattr(progress, "monotonic", lambda: now[0])

    def passes(seconds):
        now[0] += seconds

    yield passes
    be_quiet(False)


def test_something_long_tells_how_far_it_is_every_so_often(time, capsys):
    with bar("precompute", 4000, every=10) as progress:
        progress.update(0)
        for _ in range(3):
            time(8)
            progress.update(1000, note="62 samples/s")
    assert capsys.readouterr().err.splitlines() == [
        "precompute: 2,000 of 4,000 (50%), 0:00:16 elapsed, 0:00:16 left, 62 samples/s"
    ]


def test_an_unknown_total_has_no_share_and_no_time_left(time, capsys):
    with bar("predict", every=10) as progress:
        time(4000)
        progress.update(1500)
    assert capsys.readouterr().err == "predict: 1,500, 1:06:40 elapsed\n"


def test_what_an_earlier_run_did_is_no_measure_of_the_time_left(time, capsys):
    with bar("finetune", every=10) as progress:
        progress.update(900, total=1000)
        time(20)
        progress.update(50)
    assert capsys.readouterr().err == "finetune: 950 of 1,000 (95%), 0:00:20 elapsed, 0:00:20 left\n"


def test_something_short_says_nothing(time, capsys):
    with bar("predict", 10) as progress:
        time(29)
        progress.update(10)
    assert capsys.readouterr().err == ""


def test_quiet_says_nothing(time, capsys):
    be_quiet(True)
    with bar("predict", 10, every=10) as progress:
        time(29)
        progress.update(10)
    assert capsys.readouterr().err == ""


def test_a_line_that_is_told_stays_and_quiet_leaves_it_out(capsys):
    with bar("finetune", 10) as progress:
        progress.tell("epoch 1 of 3: train loss 0.5")
        be_quiet(True)
        with bar("finetune", 10) as quiet:
            quiet.tell("epoch 2 of 3: train loss 0.4")
    assert capsys.readouterr().err == "epoch 1 of 3: train loss 0.5\n"


def test_bytes_are_counted_in_units(time, capsys):
    with bar("verify", 3 << 30, every=10, unit="bytes") as progress:
        progress.update(0)
        time(12)
        progress.update(3 << 29)
    assert capsys.readouterr().err == "verify: 1.5 GiB of 3.0 GiB (50%), 0:00:12 elapsed, 0:00:12 left\n"


def test_a_log_is_told_what_takes_long_and_nothing_else(capsys, monkeypatch):
    with spinner("loading the model"):
        pass
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress, "STARTING_SECONDS", 0.0)
    with spinner("loading the model"):
        sleep(0.2)
    assert capsys.readouterr().err == "loading the model ...\n"
    be_quiet(True)
    with spinner("loading the model"):
        sleep(0.2)
    assert capsys.readouterr().err == ""


def test_one_is_one_and_thousands_have_commas():
    assert [counted(number, "record") for number in (0, 1, 2000)] == ["0 records", "1 record", "2,000 records"]


ROWS = [
    {"head": "plain", "macro_f1": 0.8125, "train_loss": 0.25, "seconds": 12.5, "output": "/a/rather/long/path/to/run"},
    {"head": "patient", "macro_f1": 0.75, "train_loss": 0.5, "seconds": 1.25, "output": "/a/rather/long/path/to/other"},
]
CELLS = ("plain", "patient", "0.8125", "0.7500", "0.2500", "12.5 s", "1.25 s")


def table(monkeypatch, capsys, width, show, *arguments):
    monkeypatch.setattr(tables, "console", lambda: Console(stderr=True, soft_wrap=True, width=width))
    show(*arguments)
    lines = capsys.readouterr().err.splitlines()
    assert max(map(len, lines)) <= width
    assert not [line for line in lines if "…" in line]
    return lines


@pytest.mark.parametrize("width", [30, *range(44, 62), 80, 200])
def test_tables_fit_any_width_and_break_no_number(monkeypatch, capsys, width):
    lines = table(monkeypatch, capsys, width, show_rows, "Heads", ROWS)
    for fewer in range(1, 5):
        some = [dict(list(row.items())[:fewer]) for row in ROWS]
        table(monkeypatch, capsys, width, show_rows, "Heads", some)
    assert all(any(cell in line for line in lines) for cell in CELLS)
    wide = [line for line in lines if "plain" in line and "0.8125" in line]
    assert bool(wide) == (width >= 58), "a line each if that breaks no number and no word of a title"
    lines = table(
        monkeypatch, capsys, width, show_fields, "Fine-tuned", {"output": "x" * 70, "samples_per_second": 12.5}
    )
    assert any("12.5" in line for line in lines)
    assert "".join(lines).count("x") == 70


TERMINAL = """
import sys, time
from recycle_cli.reports import bar, say, show_fields, show_rows, spinner
with spinner("loading the model caf\\u00e9"):
    time.sleep(0.05)
with bar("finetune", 1000) as progress:
    progress.tell("epoch 1 of 3: macro_f1 0.8125 (best so far), accuracy 0.7500, eval loss 0.2500; 12.5 s")
    progress.update(500, note="epoch 1/3, loss 0.6931")
    with spinner("inside a bar"):
        say("caf\\u00e9")
show_fields("Fine-tuned", {"output": "caf\\u00e9", "share": 0.5})
"""


def on_a_terminal(width, **environment):
    """What the program prints on a terminal of this width, without the marks that move the cursor."""
    main, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR", "LC_ALL", "LANG")}
    env |= {"TERM": "xterm-256color", **environment}
    done = subprocess.Popen([sys.executable, "-c", TERMINAL], stderr=other, env=env)
    os.close(other)
    parts = []
    with suppress(OSError):  # Linux says so when the other end is closed
        while part := os.read(main, 65536):
            parts.append(part)
    os.close(main)
    assert done.wait() == 0, b"".join(parts)
    return b"".join(parts).decode("utf-8")


@pytest.mark.parametrize("width", [50, 80, 200])
def test_a_terminal_has_one_bar_that_fits_and_lines_that_stay(width):
    shown = on_a_terminal(width)
    assert "loading the model café ..." in shown
    assert "inside a bar" not in shown
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    lines = [line for line in re.split(r"[\r\n]+", plain) if line]
    assert max(map(len, lines)) <= width
    joined = " ".join(lines)
    assert all(word in joined for word in ("macro_f1 0.8125 (best so far)", "12.5 s", "café", "Fine-tuned"))
    (*_, drawn) = (line for line in lines if line.startswith("finetune"))
    assert "left" in drawn
    assert "epoch 1/3, loss 0.6931" in drawn
    assert ("500/1000" in drawn) == (width >= 80)


def test_no_color_has_no_color():
    assert re.search(r"\x1b\[[0-9;]*3[0-9]", on_a_terminal(80))
    assert not re.search(r"\x1b\[[0-9;]*3[0-9][0-9;]*m", on_a_terminal(80, NO_COLOR="1"))


@pytest.mark.parametrize(
    "environment", [{"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}, {"PYTHONIOENCODING": "ascii"}]
)
def test_a_terminal_of_few_marks_is_written_to_as_well(environment):
    shown = on_a_terminal(80, **environment)
    assert "Traceback" not in shown
    assert "epoch 1 of 3" in shown
    assert ("caf\\xe9" in shown) or ("café" in shown)


def test_bytes_are_read_in_binary_units_wherever_they_are_named():
    assert human("bytes_per_sample", 393216) == human("bytes", 393216) == "384.0 KiB"
    assert human("bytes_per_second", 5) == "5"
