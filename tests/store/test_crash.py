"""A short run of the crash test; `python -m tests.store.crash --kills 200` is the long one."""

import pytest

from . import crash


@pytest.fixture(scope="module")
def work(recycle, tmp_path_factory):
    return crash.Work(recycle, tmp_path_factory.mktemp("work"))


def test_nothing_sealed_is_lost_or_doubled_by_sigkill(work, tmp_path):
    done = crash.Trial(work, tmp_path, seed=3).run(6)
    assert done["killed"] >= 6


def test_a_process_that_was_stopped_goes_on(work, tmp_path):
    trial = crash.Trial(work, tmp_path, seed=5)
    while not trial.counts["stopped a"]:
        trial.stop_round()
        trial.check(damaged=False)
    trial.finish()


def test_a_full_disk_costs_nothing_that_was_sealed(work, small_disk):
    trial = crash.Trial(work, small_disk, seed=7, full=True)
    trial.run(4)
    while not trial.counts["full"] and trial.counts["killed"] < 30:  # a busy machine may take more
        trial.begin()
        trial.run(trial.counts["killed"] + 2)
    assert trial.counts["full"] > 0
