"""Run each tracker in a thread of its own, so that it can neither slow down a training nor end it."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Thread
from time import monotonic

from recycle_cli.disk import read_object
from recycle_cli.errors import UsageError
from recycle_cli.reports import is_quiet, say, spinner
from recycle_cli.runs.trackers.contract import About, Tracker
from recycle_cli.runs.trackers.kinds import TRACKERS

TRACKER_KEYS = "trackers.json"
"""The file of the RUN that holds each tracker's own name of the training."""

MOST_WAITING = 100_000
"""Most items that wait for a tracker; further ones are dropped."""

PATIENCE = 60.0
"""Seconds that a training which has ended waits for its trackers."""

_KEEPING = Lock()

Track = Callable[[int, Mapping[str, float]], None]


def check_trackers(names: Sequence[str]) -> None:
    """Raise UsageError for a tracker that is not installed, or that cannot be used."""
    for name in names:
        if name not in TRACKERS:
            raise UsageError(f"--log {name} is not known; take one of {', '.join(TRACKERS)}")
        if not installed(name):
            raise UsageError(f"--log {name} needs a package: pip install 'recycle-cli[{name}]'")
        TRACKERS[name].check()


@contextmanager
def tracking(names: Sequence[str], about: About) -> Iterator[Track]:
    """A function that hands figures of a step to the trackers, in order; it never waits and never fails. A resumed
    training goes on under the name that each tracker has for it.

    If a tracker fails, or has not taken all figures PATIENCE seconds after the end, a line says so, and it is left.
    """
    if not names:
        yield lambda step, figures: None
        return
    known = _keys(about.folder)
    # On stdout are results alone, whatever a tracker prints.
    with redirect_stdout(sys.stderr):
        workers = [_Worker(name, replace(about, key=known.get(name))) for name in names]

        def track(step: int, figures: Mapping[str, float]) -> None:
            for worker in workers:
                worker.put((step, figures))

        finished = False
        try:
            yield track
            finished = True
        finally:
            _close(workers, finished=finished)


def installed(name: str) -> bool:
    """Whether a tracker's package is there."""
    package = TRACKERS[name].package
    return package is None or find_spec(package) is not None


def _close(workers: Sequence["_Worker"], *, finished: bool) -> None:
    until = monotonic() + PATIENCE
    for worker in workers:
        worker.put(finished)
    for worker in workers:
        with spinner(f"waiting for {worker.name}"):
            worker.join(max(0.0, until - monotonic()))
        if worker.is_alive():
            say(f"--log {worker.name}: it has not taken all figures in {PATIENCE:.0f} s, and is left alone")


class _Worker(Thread):
    """Opens a tracker and hands it the items of a queue: figures of a step, and last whether the training finished."""

    def __init__(self, name: str, about: About) -> None:
        super().__init__(name=name, daemon=True)  # one that hangs must not keep the command from ending
        self._about = about
        self._waiting: SimpleQueue[tuple[int, Mapping[str, float]] | bool] = SimpleQueue()
        self.start()

    def put(self, item: tuple[int, Mapping[str, float]] | bool) -> None:
        """Queue an item, unless the tracker has failed or is very far behind."""
        if self.is_alive() and (isinstance(item, bool) or self._waiting.qsize() < MOST_WAITING):
            self._waiting.put(item)

    def run(self) -> None:
        """Until the end or the first failure."""
        try:
            tracker = TRACKERS[self.name].open(self._about)
            if tracker.key is not None:
                _keep_key(self._about.folder, self.name, tracker.key)
            if tracker.where and not is_quiet():
                say(f"--log {self.name}: {tracker.where}")
            self._serve(tracker)
        except Exception as error:  # noqa: BLE001 - a tracker is other people's code, beside the training
            said = " ".join(f"{type(error).__name__}: {error}".split())
            say(f"--log {self.name} has failed, and the training goes on without it: {said[:300]}")

    def _serve(self, tracker: Tracker) -> None:
        while not isinstance(item := self._waiting.get(), bool):
            tracker.log(*item)
        tracker.close(finished=item)


def _keys(folder: Path) -> dict[str, str]:
    try:
        return read_object(folder / TRACKER_KEYS)
    except (OSError, ValueError):
        return {}


def _keep_key(folder: Path, name: str, key: str) -> None:
    with _KEEPING:
        (folder / TRACKER_KEYS).write_text(json.dumps({**_keys(folder), name: key}) + "\n", encoding="utf-8")
