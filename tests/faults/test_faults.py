"""Short runs of the trials; `python -m tests.faults.sweep` and `python -m tests.faults.power_cut` are the long ones."""

import errno

import pytest

from tests.commands import Commands
from tests.faults import power_cut, sweep

TRIALS = [
    ("overwrite", "write", 3, errno.EIO),
    ("overwrite", "fsync", 5, errno.ENOSPC),
    ("overwrite", "rename", 9, errno.EIO),
    ("overwrite", "unlink", 2, errno.EIO),
    ("predict", "open", 4, errno.EIO),
]


@pytest.fixture(scope="module")
def failing(tmp_path_factory):
    """Commands in which calls can be made to fail."""
    folder = tmp_path_factory.mktemp("failing").resolve()
    library = sweep.compiled(folder)
    if library is None:
        pytest.skip("there is no cc to compile the library with")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("LD_PRELOAD", str(library))
        commands = Commands()
    yield sweep.Sweep(commands, folder)
    commands.close()


def test_a_call_that_fails_is_one_line_and_the_command_goes_on_when_given_again(failing):
    expected = {name: failing.undisturbed(name) for name in ("overwrite", "predict")}
    met = [failing.trial(name, call, nth, number, expected[name]) for name, call, nth, number in TRIALS]
    assert all(met), failing.counts
    assert sum(count for name, count in failing.counts.items() if name.endswith("met")) >= 4


@pytest.fixture(scope="module")
def cutting(recycle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("power").resolve()
    if not power_cut.can_mount(folder):
        pytest.skip("no disk can be mounted here")
    return power_cut.Trial(recycle, folder)


@pytest.mark.parametrize("name", [name for name in power_cut.VERBS if name != "heads"])
def test_a_power_cut_loses_nothing_that_was_reported(cutting, name):
    cutting.run(name, 3)
    found = {one for one in cutting.counts if one.startswith(f"{name}: ")}
    assert found & {f"{name}: whole", f"{name}: new"}


@pytest.mark.long
@pytest.mark.parametrize("name", power_cut.VERBS)
def test_thirty_power_cuts_lose_nothing_that_was_reported(cutting, name):
    cutting.run(name, 30)
