"""A precompute stopped at any instant goes on where it was, and ends with the store of an undisturbed run."""

import random
import signal
import subprocess
import sys
import time

import pytest

from recycle_cli.store import Store
from tests.contents import contents
from tests.records import records, write_csv


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_csv(tmp_path_factory.mktemp("corpus") / "corpus.csv", records(600, longest=20))


@pytest.fixture(scope="module")
def command(corpus, tiny_bert):
    """Arguments but for the store: many small segments, so that a run can be cut in its middle."""
    options = ("--cut", "2", "--max-length", 24, "--batch-tokens", 240, "--segment-bytes", 20000)
    return ("precompute", corpus), ("--model", tiny_bert, *options)


@pytest.fixture(scope="module")
def undisturbed(recycle, command, tmp_path_factory):
    """Contents of the store of a run that nobody stopped, and the seconds it took."""
    store = tmp_path_factory.mktemp("undisturbed") / "store"
    started = time.perf_counter()
    recycle.json(*command[0], store, *command[1])
    return contents(store), time.perf_counter() - started


def survive(recycle, command, undisturbed, store, kills, seed):
    """Kill up to so many runs over one store, each at a random instant, then let one end. Returns how many it took."""
    expected, seconds = undisturbed
    draw = random.Random(seed)
    killed = held = 0
    while killed < kills and held < len(expected):
        done = recycle.killed(*command[0], store, *command[1], after=draw.uniform(0, seconds))
        assert done.code in (0, -signal.SIGKILL)
        killed += done.code != 0
        before, held = held, len(Store.open(str(store))) if (store / "zarr.json").exists() else 0
        assert held >= before, "what was sealed is gone"
    last = recycle.json(*command[0], store, *command[1])
    assert last["reused_samples"] == held
    assert last["samples"] == len(expected)
    assert contents(store) == expected
    return killed


def test_killed_and_restarted_it_ends_with_the_same_store(recycle, command, undisturbed, tmp_path):
    survive(recycle, command, undisturbed, tmp_path / "store", kills=4, seed=1)


def test_killed_in_the_middle_it_keeps_what_was_sealed(recycle, command, undisturbed, tmp_path):
    expected, _ = undisturbed
    running = recycle.start(*command[0], tmp_path / "store", *command[1])
    segments = tmp_path / "store" / "segments"
    while not (segments.exists() and len([one for one in segments.iterdir() if one.is_dir()]) >= 3):
        time.sleep(0.002)
    running.send(signal.SIGKILL)
    assert running.wait().code == -signal.SIGKILL
    held = len(Store.open(str(tmp_path / "store")))
    assert 0 < held < len(expected)
    assert recycle.json(*command[0], tmp_path / "store", *command[1])["reused_samples"] == held
    assert contents(tmp_path / "store") == expected


@pytest.mark.long
def test_killed_30_times_it_ends_with_the_same_store(recycle, command, undisturbed, tmp_path):
    killed = stores = 0
    while killed < 30:
        killed += survive(recycle, command, undisturbed, tmp_path / f"store-{stores}", kills=30 - killed, seed=stores)
        stores += 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_interrupted_it_seals_what_is_whole_and_exits_130(recycle, command, undisturbed, tmp_path, number):
    expected, _ = undisturbed
    store = tmp_path / "store"
    running = recycle.start(*command[0], store, *command[1], "--json")
    while not [one for one in store.glob("segments/*") if one.is_dir()]:
        time.sleep(0.002)
    running.send(number)
    done = running.wait()
    assert done.code == 130
    assert done.json["error"]["exit_code"] == 130
    held = len(Store.open(str(store)))
    said = f"interrupted; {store} has {held:,} new samples, {held:,} in all: the same command goes on"
    assert done.err == f"recycle: {said}\n"
    assert 0 < held <= len(expected)
    assert not [one for one in (store / "tmp").iterdir() if one.is_dir()], "a draft was left behind"
    assert recycle.json(*command[0], store, *command[1])["reused_samples"] == held
    assert contents(store) == expected


@pytest.mark.long
def test_a_program_of_its_own_exits_130_on_ctrl_c(command, tmp_path):
    """The same without the forking server: interpreter start, imports and shutdown included."""
    arguments = [*command[0], tmp_path / "store", *command[1], "--segment-bytes", 2000]
    program = subprocess.Popen([sys.executable, "-m", "recycle_cli", *map(str, arguments)], stderr=subprocess.PIPE)
    while not [one for one in tmp_path.glob("store/segments/*") if one.is_dir()]:
        time.sleep(0.002)
    program.send_signal(signal.SIGINT)
    _, err = program.communicate()
    assert program.returncode == 130
    assert b"Traceback" not in err
