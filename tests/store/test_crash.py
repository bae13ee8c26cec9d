"""A short part of `python -m tests.store.crash --kills 200`, which is the long form."""

import subprocess

import pytest

from . import crash


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 6 MiB. Only root may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "none", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def inputs(tmp_path):
    folder = tmp_path / "inputs"
    folder.mkdir()
    return folder


def test_nothing_sealed_is_lost_or_doubled_by_sigkill(recycle, inputs, tmp_path):
    done = crash.Trial(recycle, inputs, tmp_path, seed=3).run(6)
    assert done["killed"] >= 6


def test_a_process_that_was_stopped_goes_on(recycle, inputs, tmp_path):
    trial = crash.Trial(recycle, inputs, tmp_path, seed=5)
    while not trial.counts["stopped a"]:
        trial.stop_round()
        trial.check(damaged=False)
    trial.finish()


def test_a_full_disk_costs_nothing_that_was_sealed(recycle, inputs, small_disk):
    done = crash.Trial(recycle, inputs, small_disk, seed=7, full=True).run(4)
    assert done["full"] > 0
