"""Bench the verbs alone and beside processes that keep cores busy, and transformers' Trainer as it comes."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from recycle_cli.bench import finetune, precompute, predict
from recycle_cli.bench.layout import BUSY, CONTENDERS, OF_TRAINER
from recycle_cli.bench.subject import Subject
from recycle_cli.bench.timing import Run, Runner, Unavailable
from recycle_cli.bench.worker import Worker
from recycle_cli.runtime.threads import as_it_comes, leave_room

SPIN = "import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n    for _ in range(10**6): pass"
"""A program that computes on one core until the process that started it is gone."""


def runners(subject: Subject) -> dict[str, Runner | Unavailable]:
    """Runners of each contender beside so many busy processes: ours with our threads, the Trainer's with torch's own.

    Each has a process for itself, since threads are set up when torch is imported.
    """
    leave_room()
    ours = Worker(_ours, _apart(subject, "ours", CONTENDERS), dict(os.environ))
    found = _beside_each(CONTENDERS, ours)
    if (lacking := finetune.without_trainer(subject)) is not None:
        return found | {f"contention.{name}.{group}": lacking for name in OF_TRAINER for group in BUSY}
    theirs = Worker(_trainers, _apart(subject, "theirs", ("finetune",)), as_it_comes())
    return found | _beside_each(OF_TRAINER, theirs)


def _beside_each(names: Sequence[str], worker: Worker) -> dict[str, Runner | Unavailable]:
    """A runner of each name beside each number of busy processes."""
    return {
        f"contention.{name}.{group}": partial(_beside, worker, name, busy)
        for name in names
        for group, busy in BUSY.items()
    }


def _apart(subject: Subject, folder: str, verbs: tuple[str, ...]) -> Subject:
    """The same subject, not loaded yet, with a scratch folder of its own."""
    scratch = subject.scratch / folder
    scratch.mkdir()
    return Subject(subject.corpus, subject.model, replace(subject.settings, verbs=verbs), scratch)


def _ours(subject: Subject) -> Mapping[str, Runner]:
    makers = {"precompute": precompute.ours, "finetune": finetune.ours, "predict": predict.ours}
    return {name: makers[name](subject) for name in CONTENDERS}


def _trainers(subject: Subject) -> Mapping[str, Runner]:
    from recycle_cli.bench.trainer import runners as of_trainer

    found = of_trainer(subject, subject.resolve(subject.settings.cuts[0]))
    return {name: found[f"finetune.{name}"] for name in OF_TRAINER}


def _beside(worker: Worker, name: str, busy: int, repetition: int) -> Run:
    with _busy(busy):
        return worker.run(name, repetition)


@contextmanager
def _busy(processes: int) -> Iterator[None]:
    """So many processes compute meanwhile."""
    started = [subprocess.Popen([sys.executable, "-S", "-c", SPIN]) for _ in range(processes)]
    try:
        yield
    finally:
        for one in started:
            one.kill()
        for one in started:
            one.wait()
