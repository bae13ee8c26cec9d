"""Choose before torch is imported how many threads compute, and how they wait for each other."""

import os
from collections.abc import Iterator
from math import ceil
from pathlib import Path

CGROUPS, LISTED = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
"""Where Linux mounts control groups, and where it lists those of this process."""

SETTINGS = ("OMP_NUM_THREADS", "RAYON_NUM_THREADS", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME")
"""Environment variables that decide this. Those that the user has set stay."""

_chosen: dict[str, str] = {}


def leave_room() -> None:
    """Choose threads that leave others room; call it before torch is imported.

    By default OpenMP's threads spin for long at a barrier while they wait for a thread whose core another process uses
    (GNU's almost for ever, LLVM's and Intel's for 200 ms): beside one busy process on two cores an epoch took 40 s that
    way, and 9 s with this. Alone it takes as long as before. If the quota of a container allows fewer cores than the
    machine has, only as many threads compute and tokenise.
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        _choose("GOMP_SPINCOUNT", "1000")
    if not {"KMP_BLOCKTIME", "OMP_WAIT_POLICY"} & os.environ.keys():
        _choose("KMP_BLOCKTIME", "1")
    if (cores := usable_cores()) < _cores():
        for name in ("OMP_NUM_THREADS", "RAYON_NUM_THREADS"):
            if name not in os.environ:
                _choose(name, str(cores))


def _choose(name: str, value: str) -> None:
    os.environ[name] = _chosen[name] = value


def as_it_comes() -> dict[str, str]:
    """The environment without the variables that were set here, as another program would have it."""
    return {name: value for name, value in os.environ.items() if _chosen.get(name) != value}


def thread_settings() -> dict[str, str]:
    """The variables about threads in the environment, whoever set them."""
    return {name: os.environ[name] for name in SETTINGS if name in os.environ}


def usable_cores() -> int:
    """Cores that this process may use: those it is bound to, and no more than the quota of its container."""
    quota = min(_quotas(), default=None)
    return _cores() if quota is None else max(1, min(_cores(), ceil(quota)))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _quotas() -> Iterator[float]:
    """Cores that the process's control group and those above it allow, of either version."""
    try:
        lines = LISTED.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, place = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounted = CGROUPS / controllers if controllers else CGROUPS
        inner = mounted / place.lstrip("/")
        for group in (inner, *inner.parents):
            yield from _quota(group)
            if group == mounted:
                break


def _quota(group: Path) -> Iterator[float]:
    """Cores that one control group allows; none if it sets no limit or cannot be read."""
    try:
        if (limit := group / "cpu.max").exists():
            quota, period = limit.read_text(encoding="utf-8").split()
        else:
            quota, period = (
                (group / name).read_text(encoding="utf-8").strip() for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            )
        if quota.isdecimal() and float(quota) > 0:
            yield float(quota) / float(period)
    except (OSError, ValueError):
        return
