"""A process that measures in an environment of its own: how threads wait is settled before torch is imported."""

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection

from recycle_cli.bench.subject import Subject
from recycle_cli.bench.timing import Run, Runner
from recycle_cli.errors import RecycleError

MakeRunners = Callable[[Subject], Mapping[str, Runner]]
"""A function of a module, which the process can import."""


@dataclass
class Worker:
    """Runs runners by name in another process, which ends once this object is gone."""

    make: MakeRunners
    subject: Subject
    environment: Mapping[str, str]
    _connection: Connection = field(init=False)

    def __post_init__(self) -> None:
        context = get_context("spawn")
        self._connection, theirs = context.Pipe()
        with _environment(self.environment):
            context.Process(target=_serve, args=(theirs, self.make, self.subject), daemon=True).start()
        theirs.close()

    def run(self, name: str, repetition: int) -> Run:
        """One repetition of a runner. Raises what the process raised, and RecycleError if it ended without a word, as
        one does that the system kills."""
        try:
            self._connection.send((name, repetition))
            found = self._connection.recv()
        except (EOFError, OSError) as error:
            raise RecycleError(
                f"the process that measured {name} has ended before it answered, as when the system stops it for its "
                "memory; give a smaller --batch-tokens or --batch-size, or measure on a machine with more memory"
            ) from error
        if isinstance(found, Exception):
            raise found
        assert isinstance(found, Run)
        return found


@contextmanager
def _environment(wanted: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(wanted)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _serve(connection: Connection, make: MakeRunners, subject: Subject) -> None:
    """Make the runners and answer until the other side is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it reaches the whole group; the parent ends this process
    runners: Mapping[str, Runner] = {}
    while True:
        try:
            name, repetition = connection.recv()
        except EOFError:
            return
        try:
            runners = runners or make(subject)
            connection.send(runners[name](repetition))
        except Exception as error:  # noqa: BLE001 - whatever it is, the parent raises it
            connection.send(error)
