"""Threads leave others room, as many compute as may, and what the user has set stays."""

import os

import pytest

from recycle_cli.runtime import threads
from recycle_cli.runtime.threads import as_it_comes, leave_room, thread_settings, usable_cores


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    for name in threads.SETTINGS:
        monkeypatch.setenv(name, "")  # so that what the test sets goes again
        monkeypatch.delenv(name)
    monkeypatch.setattr(threads, "_chosen", {})


@pytest.fixture
def quota(monkeypatch, tmp_path):
    """A function that makes the machine one of 8 cores with control groups of these files."""
    monkeypatch.setattr(threads, "CGROUPS", tmp_path)
    monkeypatch.setattr(threads, "_cores", lambda: 8)
    listed = tmp_path / "cgroup"

    def set_up(lines, files):
        listed.write_text(lines)
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)

    monkeypatch.setattr(threads, "LISTED", listed)
    set_up("0::/\n", {})
    return set_up


def test_threads_spin_briefly(quota):
    leave_room()
    assert thread_settings() == {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"}


@pytest.mark.parametrize(
    ("name", "value", "chosen"),
    [
        ("GOMP_SPINCOUNT", "5", {"KMP_BLOCKTIME": "1"}),
        ("OMP_WAIT_POLICY", "active", {}),
        ("KMP_BLOCKTIME", "200", {"GOMP_SPINCOUNT": "1000"}),
        ("OMP_NUM_THREADS", "7", {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1", "RAYON_NUM_THREADS": "2"}),
    ],
)
def test_what_the_user_has_set_stays(monkeypatch, quota, name, value, chosen):
    quota("0::/\n", {"cpu.max": "200000 100000\n"} if name == "OMP_NUM_THREADS" else {})
    monkeypatch.setenv(name, value)
    leave_room()
    assert thread_settings() == {name: value, **chosen}


@pytest.mark.parametrize(
    ("lines", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "5000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 8),
        ("0::/\n", {"cpu.max": "1600000 100000\n"}, 8),
        ("0::/\n", {"cpu.max": "nonsense"}, 8),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "300000 100000\n"}, 3),
        (
            "4:memory:/\n3:cpu,cpuacct:/docker/x\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "400000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"},
            4,
        ),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ("4:cpuset:/\n", {"cpuset/cpu.max": "100000 100000\n"}, 8),
    ],
)
def test_as_many_threads_as_the_quota_of_a_container_allows(quota, lines, files, cores):
    quota(lines, files)
    assert usable_cores() == cores
    leave_room()
    found = thread_settings()
    assert found.get("OMP_NUM_THREADS") == found.get("RAYON_NUM_THREADS") == (str(cores) if cores < 8 else None)


def test_a_system_without_control_groups_has_its_cores(monkeypatch, tmp_path):
    monkeypatch.setattr(threads, "LISTED", tmp_path / "none")
    assert usable_cores() == threads._cores()


def test_what_was_chosen_can_be_left_out_and_what_the_user_set_stays(monkeypatch, quota):
    monkeypatch.setenv("KMP_BLOCKTIME", "9")
    leave_room()
    plain = as_it_comes()
    assert "GOMP_SPINCOUNT" not in plain
    assert plain["KMP_BLOCKTIME"] == "9"
    assert plain["PATH"] == os.environ["PATH"]
