"""A process that checks one type after another, so that one which hangs or dies is an outcome, too."""

import multiprocessing
import warnings
from multiprocessing.connection import Connection
from types import TracebackType

from tests.models.all_types.check import WRONG, Outcome, check

SECONDS = 900
"""Longest that a type may take."""


class Worker:
    """A process of its own; another takes its place if it hangs or dies. Use it in a `with` block."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._start()

    def check(self, modality: str, kind: str) -> Outcome:
        """The outcome of a type."""
        self._pipe.send((modality, kind))
        try:
            if self._pipe.poll(SECONDS):
                return self._pipe.recv()
            reason = f"no answer within {SECONDS} s"
        except EOFError:
            reason = "the process died"
        self._stop()
        self._start()
        return Outcome(modality, kind, WRONG, reason)

    def _start(self) -> None:
        self._pipe, theirs = self._context.Pipe()
        self._process = self._context.Process(target=_answer, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def _stop(self) -> None:
        self._pipe.close()
        self._process.kill()
        self._process.join()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop()


def _answer(pipe: Connection) -> None:
    import torch

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    while True:
        try:
            modality, kind = pipe.recv()
        except EOFError:
            return
        pipe.send(check(modality, kind))
