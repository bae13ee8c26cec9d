"""A command ends with one line and the right code, whatever it is given: odd files, long names, signals, streams."""

import os
import signal
import subprocess
import sys
import time

import pytest

from recycle_cli.corpus import IMAGE
from recycle_cli.errors import DataError
from tests.corpora import open_corpus
from tests.records import records, write_csv

LONG = "n" * 300


def image(path):
    """A file that is taken for an image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"an image")
    return path


def pipe(folder):
    os.mkfifo(folder / "c" / "x.png")


def device(folder):
    (folder / "c" / "x.png").symlink_to("/dev/zero")


def to_itself(folder):
    (folder / "c" / "self").symlink_to(".", target_is_directory=True)


def endless(folder):
    for name in ("up", "again"):
        (folder / "c" / name).symlink_to("..", target_is_directory=True)


def link_to_itself(folder):
    (folder / "c" / "x.png").symlink_to("x.png")


@pytest.mark.parametrize("put", [pipe, device, to_itself, endless, link_to_itself])
def test_among_images(tmp_path, put):
    image(tmp_path / "c" / "a.png")
    put(tmp_path)
    with pytest.raises(DataError, match=r"x\.png|through a link") as raised:
        list(open_corpus(str(tmp_path), form=IMAGE))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["pipe", "/dev/zero", "/dev/stdin", "folder"])
def test_as_the_image_of_a_record(tmp_path, name):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    image(tmp_path / "a.png")
    (tmp_path / "list.jsonl").write_text(f'{{"image": "{name}"}}\n{{"image": "a.png"}}\n')
    corpus = open_corpus(str(tmp_path / "list.jsonl"), form=IMAGE, on_error="skip")
    assert [example.id for example in corpus] == ["a.png"]
    with pytest.raises(DataError, match="expected a regular file"):
        list(open_corpus(str(tmp_path / "list.jsonl"), form=IMAGE))


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null", "/dev/full"])
def test_a_device_as_a_corpus(device):
    with pytest.raises(DataError, match="no such file"):
        list(open_corpus(device))


def test_a_pattern_that_would_go_round_in_circles(tmp_path):
    write_csv(tmp_path / "a.csv", records(2))
    for name in ("one", "two"):
        (tmp_path / name).symlink_to(".", target_is_directory=True)
    with pytest.raises(DataError, match=r"is the folder .* again, through a link"):
        list(open_corpus(str(tmp_path / "**" / "*.csv")))


TOML = {
    "nested deeply": b"x = " + b"[" * 20_000,
    "no UTF-8": b'x = "\xff"',
    "nested tables": b"[" + b".".join([b"a"] * 20_000) + b"]",
}


@pytest.mark.parametrize("content", TOML.values(), ids=TOML)
def test_a_heads_file_of_any_content(recycle, tmp_path, content):
    (tmp_path / "heads.toml").write_bytes(content)
    write_csv(tmp_path / "d.csv", records(4))
    done = recycle("finetune", "d.csv", "s.zarr", "--output", "out", "--heads", tmp_path / "heads.toml", cwd=tmp_path)
    assert (done.code, done.err.count("\n")) == (2, 1), done


def test_a_pipe_as_a_heads_file(recycle, tmp_path):
    os.mkfifo(tmp_path / "heads.toml")
    write_csv(tmp_path / "d.csv", records(4))
    done = recycle("finetune", "d.csv", "s.zarr", "--output", "out", "--heads", "heads.toml", cwd=tmp_path)
    assert (done.code, "it is a pipe" in done.err) == (2, True), done


NAMES = {
    "DATA": ("precompute", LONG, "s.zarr", "--model", "m"),
    "STORE": ("precompute", "d.csv", LONG, "--model", "tiny", "--cut", 2),
    "--model": ("precompute", "d.csv", "s.zarr", "--model", LONG),
    "--model as a path": ("precompute", "d.csv", "s.zarr", "--model", f"./{LONG}"),
    "RUN": ("predict", "d.csv", LONG),
    "--output": ("finetune", "d.csv", "--model", "tiny", "--cut", 2, "--output", LONG),
    "--output below": ("finetune", "d.csv", "--model", "tiny", "--cut", 2, "--output", f"{LONG}/run"),
    "--heads": ("finetune", "d.csv", "s.zarr", "--output", "o", "--heads", LONG),
    "--eval": ("finetune", "d.csv", "--model", "tiny", "--cut", 2, "--output", "o", "--eval", LONG),
    "--failures": ("precompute", "d.csv", "s.zarr", "--model", "tiny", "--cut", 2, "--failures", LONG),
    "store info": ("store", "info", LONG),
    "a folder of folders": ("predict", "d.csv", "/".join(["n" * 200] * 30)),
}


@pytest.mark.parametrize("command", NAMES.values(), ids=NAMES)
def test_a_name_that_is_too_long(recycle, tiny_bert, tmp_path, command):
    write_csv(tmp_path / "d.csv", records(4))
    (tmp_path / "tiny").symlink_to(tiny_bert, target_is_directory=True)
    done = recycle(*command, cwd=tmp_path)
    assert done.code in (2, 3, 4), done
    assert done.err.count("\n") == 1, done


def python(code, **options):
    """A process of its own that runs the code."""
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    return subprocess.Popen([sys.executable, "-c", code], **given)


IMPORTING = """
import os, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), {number})
sys.meta_path.insert(0, Finder())
from recycle_cli.__main__ import main
sys.argv = ["recycle", "--version"]
main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("module", ["typer", "recycle_cli.cli.main", "recycle_cli.cli.store"])
def test_a_signal_while_the_program_is_imported(module, number):
    done = python(IMPORTING.format(module=module, number=int(number)))
    out, err = done.communicate(timeout=60)
    assert (done.returncode, out) == (130, "")
    assert err.startswith("recycle: interrupted")
    assert err.count("\n") == 1


TWICE = """
import os, sys
import recycle_cli.cli.main as main
from recycle_cli.errors import Interrupted
def app(*_, **__):
    try:
        os.kill(os.getpid(), 2)
    finally:
        {cleaning}
say = main.say
def telling(message, **options):
    {telling}
    say(message, **options)
main.app, main.say = app, telling
main.main()
"""
KILL = "os.kill(os.getpid(), 2)"


@pytest.mark.parametrize(
    ("cleaning", "telling"),
    [("pass", KILL), (KILL, "pass"), ("pass", f"{KILL}; {KILL}")],
    ids=["telling", "cleaning", "twice"],
)
def test_a_second_signal(cleaning, telling):
    done = python(TWICE.format(cleaning=cleaning, telling=telling))
    out, err = done.communicate(timeout=60)
    assert (done.returncode, out) == (130, "")
    assert err.startswith("recycle: interrupted")
    assert err.count("\n") == 1


MAIN = """
import sys
import recycle_cli.cli.main as main
from recycle_cli.reports import put, say, show_fields
def app(*_, **__):
    {body}
main.app = app
sys.argv = ["recycle", "--json"]
from recycle_cli.runtime.streams import open_streams
open_streams()
main.main()
"""


@pytest.mark.parametrize("body", ['put("{}")', 'print("{}")', 'print("{}" * 100_000)'])
def test_a_full_stdout_is_one_line_and_exit_code_4(body):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = python(MAIN.format(body=body), stdout=full)
        _, err = done.communicate(timeout=60)
    assert done.returncode == 4
    assert err.count("\n") == 1
    assert "No space left" in err or "no space is left" in err


def test_a_closed_stdout_is_one_line_and_exit_code_4():
    done = python(MAIN.format(body='put("{}")'), stdout=None, preexec_fn=lambda: os.close(1))
    _, err = done.communicate(timeout=60)
    assert (done.returncode, err.count("\n")) == (4, 1)
    assert "stdout is closed" in err


@pytest.mark.parametrize("lose", ["close", "full"])
def test_work_that_is_done_counts_though_stderr_is_lost(lose):
    body = 'say("one"); show_fields("Two", {"a": 1}); put("{}")'
    with open("/dev/full", "w") as full:  # noqa: PTH123
        options = {"stderr": full} if lose == "full" else {"stderr": None, "preexec_fn": lambda: os.close(2)}
        done = python(MAIN.format(body=body), **options)
        out, _ = done.communicate(timeout=60)
    assert (done.returncode, out) == (0, "{}\n")


THREAD = """import threading
    def work():
        raise OSError(5, "Input/output error", "events")
    one = threading.Thread(target=work)
    one.start(); one.join()
    put("{}")"""


def test_what_a_librarys_own_thread_is_refused_is_one_line():
    done = python(MAIN.format(body=THREAD))
    out, err = done.communicate(timeout=60)
    assert (done.returncode, out) == (0, "{}\n")
    assert err == "in the background: [Errno 5] Input/output error: 'events'\n"


BUS = """
import mmap, os, sys, threading
import recycle_cli.cli.main as main
def read():
    with open({path!r}, "r+b") as file:
        mapped = mmap.mmap(file.fileno(), 0)
        os.truncate({path!r}, 0)
        {read}
main.app = lambda *_, **__: {start}
sys.argv = ["recycle", "--json"]
main.main()
"""
READS = {
    "python": ("mapped[5]", "read()"),
    "a thread": ("mapped[5]", "(lambda one: (one.start(), one.join()))(threading.Thread(target=read))"),
    "without the interpreter's lock": ("import xxhash; xxhash.xxh3_64(mapped)", "read()"),
    "numpy": ("import numpy; numpy.frombuffer(mapped, numpy.uint8).sum()", "read()"),
}


@pytest.mark.skipif(sys.platform != "linux", reason="SIGBUS is answered on Linux")
@pytest.mark.parametrize(("read", "start"), READS.values(), ids=READS)
def test_a_mapped_file_that_is_cut_short(tmp_path, read, start):
    (tmp_path / "file").write_bytes(bytes(10_000))
    done = python(BUS.format(path=str(tmp_path / "file"), read=read, start=start))
    out, err = done.communicate(timeout=60)
    assert done.returncode == 4, err
    assert err.startswith("recycle: a file was cut short")
    assert err.count("\n") == 1
    assert out.startswith('{"error": {"kind": "StorageError"')
    assert out.count("\n") == 1


@pytest.mark.long
def test_a_signal_at_any_instant_of_a_program_of_its_own():
    """Interpreter start aside, which is Python's own."""
    for number in range(40):
        program = subprocess.Popen(
            [sys.executable, "-m", "recycle_cli", "layers", "none"], stderr=subprocess.PIPE, stdout=subprocess.PIPE
        )
        time.sleep(0.1 + number * 0.05)
        program.send_signal(signal.SIGINT)
        _, err = program.communicate()
        assert program.returncode in (130, 3), err
        assert b"Traceback" not in err
