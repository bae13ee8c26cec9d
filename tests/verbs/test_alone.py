"""One process trains a RUN: a second one is told so, whatever it asks for, and finds the folder free afterwards."""

import signal
import time

import pytest

from tests.records import records, write_csv


@pytest.fixture
def place(recycle, tiny_bert, tmp_path):
    write_csv(tmp_path / "d.csv", records(12))
    recycle.json("precompute", "d.csv", "s.zarr", "--model", tiny_bert, "--cut", 2, "--max-length", 16, cwd=tmp_path)
    return tmp_path


def training(*more):
    return ("finetune", "d.csv", "s.zarr", "--output", "run", "--no-tensorboard", "--epochs", 4000, *more)


def test_a_second_training_is_told_and_a_resume_has_the_settings_of_the_first(recycle, place):
    first = recycle.start(*training(), cwd=place)
    while not (place / "run" / "checkpoint" / "training.json").exists():
        assert not first.ended
        time.sleep(0.005)
    first.send(signal.SIGSTOP)  # a process that stands still trains the RUN all the same
    for more in ((), ("--resume",), ("--overwrite",)):
        done = recycle(*training(*more), cwd=place)
        assert done.code == (2 if not more else 4), done
        assert ("--resume" if not more else "another process trains this run") in done.err
    first.send(signal.SIGKILL)
    first.wait()
    done = recycle(*training("--resume", "--learning-rate", 0.5), cwd=place)
    assert done.code == 2
    assert "learning_rate was" in done.err
    resumed = recycle.start(*training("--resume"), cwd=place)
    while not (place / "run" / "checkpoint" / "state.safetensors").exists():
        assert not resumed.ended
        time.sleep(0.005)
    resumed.send(signal.SIGINT)
    assert resumed.wait().code == 130


def test_two_that_begin_at_once_do_not_mix(recycle, place):
    both = [recycle.start(*training("--seed", seed), cwd=place) for seed in (1, 2)]
    while not any(one.ended for one in both):
        time.sleep(0.01)
    for one in both:
        one.send(signal.SIGINT)
    codes = sorted(one.wait().code for one in both)
    assert codes in ([4, 130], [2, 130]), codes
