"""Processes that train together end together: one message names what has happened, and a resume goes on."""

import random
import signal
import time

import numpy as np
import pytest

from tests.conftest import save_tiny, tiny_config
from tests.ranks import next_start, run_ranks, start_ranks, trained_by, variables
from tests.records import records, write_csv
from tests.trainings import losses

STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
TRAINING = ("finetune", "train.csv", "texts.zarr", "--eval", "test.csv", "--no-tensorboard", "--epochs", 30)
USUAL = ("--batch-size", 6, "--learning-rate", "1e-5", "--save-steps", 3)


@pytest.fixture(scope="module")
def place(recycle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("failing")
    (folder / "bert").mkdir()
    save_tiny(folder / "bert", tiny_config(**STILL), bare=True)
    for name, count, seed in (("train.csv", 31, 0), ("test.csv", 9, 1)):
        write_csv(folder / name, records(count, seed=seed))
        model = ("--model", "bert", "--max-length", 16, "--cut", 2, "--dtype", "float32")
        recycle.json("precompute", name, "texts.zarr", *model, cwd=folder)
    trained_by(recycle, 1, *TRAINING, *USUAL, "--output", "whole", cwd=folder)
    return folder


def has_reached(run, step):
    """Waits until a training has logged so many steps."""
    log = run / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while not log.exists() or log.read_text().count('"grad_norm"') < step:
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("killed", "ranks_after"), [(1, 2), (0, 1), *(pytest.param(1, n, marks=pytest.mark.long) for n in (1, 2, 3))]
)
def test_a_rank_that_is_killed_ends_all_and_is_named(recycle, place, killed, ranks_after):
    """At a random moment; whatever number of ranks goes on has the losses of one process that was never stopped."""
    output = f"killed-{killed}-{ranks_after}"
    started = start_ranks(recycle, 2, *TRAINING, *USUAL, "--output", output, "--overwrite", cwd=place)
    has_reached(place / output, random.Random(output).randint(1, 60))
    started[killed].send(signal.SIGKILL)
    began = time.monotonic()
    dead, left = started[killed].wait(), started[1 - killed].wait()
    assert time.monotonic() - began < 20
    assert dead.code == -signal.SIGKILL
    assert left.code == 8
    (said,) = [line for line in left.err.splitlines() if line.startswith("recycle: ")]
    assert f"rank {killed} has ended" in said
    assert "--resume" in said
    trained_by(recycle, ranks_after, *TRAINING, *USUAL, "--output", output, "--resume", cwd=place)
    np.testing.assert_allclose(losses(place / output), losses(place / "whole"), rtol=0, atol=1e-5)


def test_a_signal_to_all_leaves_a_checkpoint_and_one_message(recycle, place):
    started = start_ranks(recycle, 2, *TRAINING, *USUAL, "--output", "stopped", cwd=place)
    has_reached(place / "stopped", 20)
    for one in started:
        one.send(signal.SIGTERM)
    first, second = (one.wait() for one in started)
    assert (first.code, second.code) == (130, 130)
    assert "interrupted after step" in first.err
    assert second.err == ""
    steps = len(losses(place / "stopped"))
    assert 20 <= steps < 180
    trained_by(recycle, 2, *TRAINING, *USUAL, "--output", "stopped", "--resume", cwd=place)
    np.testing.assert_allclose(losses(place / "stopped"), losses(place / "whole"), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--epochs", 0), "--epochs"),
        (("--output", "whole"), "whole holds a finished run"),
        (("--output", "mixed", "--mixup", 0.2), "--mixup: samples are mixed with others of their batch"),
    ],
)
def test_what_is_wrong_on_all_ranks_is_said_once(recycle, place, more, said):
    first, second = run_ranks(recycle, 2, *TRAINING, *USUAL, *more, cwd=place)
    assert first.code == 2
    assert second.code in (2, 8)  # it has found the same, or that the first has ended
    assert said in first.err
    assert second.err == ""


def test_ranks_with_other_settings_are_refused_by_name(recycle, place):
    port = next_start()
    started = [
        recycle.start(*TRAINING, "--output", "other", "--seed", rank, cwd=place, env=variables(rank, 2, port))
        for rank in (0, 1)
    ]
    first, second = (one.wait() for one in started)
    assert second.code == 2
    assert "rank 1: rank 1 has other data or settings than rank 0: order_seed" in second.err
    assert first.code == 8
    assert first.err == "", first


def test_stdin_is_refused(recycle, place):
    first, second = run_ranks(recycle, 2, "finetune", "-", *TRAINING[2:], "--output", "piped", cwd=place)
    assert first.code == second.code == 2
    assert "stdin goes to one process" in first.err
