"""When rows behind frozen blocks are kept, what happens if they cannot be, and that a killed training goes on."""

import random
import shutil
import signal
import time
from dataclasses import replace

import numpy as np
import pytest

from recycle_cli.errors import StorageError
from recycle_cli.runs import is_finished
from recycle_cli.settings import FreezeSettings
from recycle_cli.store import SegmentWriter
from recycle_cli.training.freezing.moving import pays
from recycle_cli.training.freezing.scratch import Contents
from tests.trainings import log_of, losses, stopped_when

ALWAYS = FreezeSettings("bound", cache="always", dtype="float32")
AUTO = replace(ALWAYS, cache="auto")


@pytest.mark.parametrize(
    ("saved", "size", "left", "expected"),
    [
        (10.0, 0, 1, True),
        (10.0, 0, 0, False),  # nothing is written in the last epoch
        (10.0, 10**9, 1, True),  # 3.3 s to write, 1 s to read, and a third of 10 s: less than the 10 s that are saved
        (6.0, 10**9, 1, False),  # 3.3 + 1 + 2 s are more than 6
        (6.0, 10**9, 2, True),
        (0.5, 10**9, 100, False),  # reading alone takes longer than what it saves
        (0.0, 0, 100, False),
    ],
)
def test_a_move_is_made_where_it_pays(saved, size, left, expected):
    assert pays(saved, size, left) is expected


def test_equal_samples_are_counted_once():
    keys = np.arange(64, dtype=np.uint8).reshape(4, 16)
    train, test = keys[[0, 1, 0]], keys[[2, 1]]
    contents = Contents([(train, train), (test, test)])
    assert len(contents) == 3
    first, second = contents.places
    assert first[0] == first[2] != first[1] == second[1]
    np.testing.assert_array_equal(contents.keys[np.concatenate([first, second])], np.concatenate([train, test]))


@pytest.mark.parametrize(
    "failure", ["disk", *(pytest.param(name, marks=pytest.mark.long) for name in ("numbers", "max_disk"))]
)
def test_a_training_whose_rows_cannot_be_kept_goes_on_in_place(texts, in_place, failure, monkeypatch, capfd):
    """The disk is full in the middle of an epoch, float16 cannot hold a number, or the user allows less."""
    about, says = AUTO, "are not kept"
    if failure == "disk":
        append = SegmentWriter.append

        def fails(writer, *given):
            if writer.samples:
                raise StorageError("No space left on device")
            append(writer, *given)

        monkeypatch.setattr(SegmentWriter, "append", fails)
        says = "No space left on device"
    elif failure == "numbers":
        monkeypatch.setattr("recycle_cli.training.freezing.scratch.rows_of", _too_large)
    else:
        about, says = replace(AUTO, max_disk=1000), "--max-disk is 1,000 B"
    monkeypatch.setattr("recycle_cli.training.freezing.moving.pays", lambda *given: True)
    report = texts.fit(f"failing-{failure}", about)
    assert report.freezing["moves"] == []
    assert says in " ".join(capfd.readouterr().err.split())
    assert losses(report.output) == losses(in_place.output)


def _too_large(*given):
    from recycle_cli.errors import DataError

    raise DataError("70000.0 does not fit into float16")


@pytest.mark.long
def test_rows_that_must_be_kept_and_cannot_be_are_an_error(texts, monkeypatch):
    def fails(writer, *given):
        raise StorageError("No space left on device")

    monkeypatch.setattr(SegmentWriter, "append", fails)
    with pytest.raises(StorageError, match=r"the rows behind the frozen blocks cannot be kept: No space left"):
        texts.fit("must", ALWAYS)


def test_rows_that_are_lost_between_two_calls_are_computed_again(texts, in_place, capfd):
    """They are never the only source: the training goes on from where it began."""
    with stopped_when(lambda trainer: trainer.state.epoch == 3):
        texts.fit("lost", ALWAYS)
    scratch = texts.folder / "lost" / "checkpoint" / "scratch"
    assert len(list(scratch.iterdir())) == 1
    shutil.rmtree(scratch)
    report = texts.fit("lost", ALWAYS, resume=True)
    assert "are not whole" in capfd.readouterr().err
    np.testing.assert_allclose(losses(report.output), losses(in_place.output), rtol=0, atol=1e-5)


def killed_until_finished(recycle, words, folder, kills, seconds, seed):
    """Kill so many calls at random instants, each of which goes on; then let one end. Returns how many were killed."""
    draw, killed = random.Random(seed), 0
    while killed < kills and not is_finished(folder):
        done = recycle.killed(*words, "--output", folder, "--resume", after=draw.uniform(0, seconds))
        assert done.code in (0, -signal.SIGKILL), done.err
        killed += done.code != 0
    if not is_finished(folder):
        recycle.json(*words, "--output", folder, "--resume")
    return killed


@pytest.fixture(scope="module")
def killable(texts, recycle, tmp_path_factory):
    """The words of a training whose cut moves, its log undisturbed, and its seconds."""
    data, test = texts.train.source[0], texts.test.source[0]
    rule = ("--freeze", "autofreeze", "--freeze-interval", 3, "--freeze-cache", "always", "--freeze-dtype", "float32")
    words = ("finetune", data, "--eval", test, "--model", texts.model.name, "--max-length", 12, "--cut", "0", *rule)
    words += ("--epochs", 6, "--batch-size", 4, "--save-steps", 3, "--no-tensorboard")
    folder = tmp_path_factory.mktemp("killable") / "undisturbed"
    started = time.perf_counter()
    report = recycle.json(*words, "--output", folder)
    assert report["freezing"]["moves"]
    return words, log_of(folder), time.perf_counter() - started


@pytest.mark.long
def test_killed_15_times_it_goes_on_exactly(recycle, killable, tmp_path):
    words, expected, seconds = killable
    killed = runs = 0
    while killed < 15:
        killed += killed_until_finished(recycle, words, tmp_path / str(runs), 15 - killed, seconds, seed=runs)
        assert log_of(tmp_path / str(runs)) == expected
        runs += 1
