"""The contract of a tracker: a program that keeps the figures of trainings, and shows them beside one another."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class About:
    """What a tracker is told of a training when it opens.

    folder    of the RUN
    name      by which people know the training among others
    settings  all that decided it, digests of its data included, by dotted names
    steps     that a resumed training has behind it; 0 for a new one
    key       what the tracker called this training before it was interrupted; None if it does not know it yet
    """

    folder: Path
    name: str
    settings: Mapping[str, Any]
    steps: int = 0
    key: str | None = None


class Tracker(Protocol):
    """Keeps the figures of one training. Any method may raise any exception: that ends the tracking alone."""

    @property
    def key(self) -> str | None:
        """What it calls the training, so that a resume goes on with it; None if the RUN's folder tells."""

    @property
    def where(self) -> str:
        """Where people look at the figures; nothing if that is the RUN."""

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Keep figures of a step; those of an evaluation may come after those of the step itself."""

    def close(self, *, finished: bool) -> None:
        """Nothing more comes; `finished` is False for a training that was interrupted or has failed."""


@dataclass(frozen=True)
class TrackerKind:
    """One tracker that `--log` names.

    package  what is imported; None if nothing has to be installed
    open     may raise any exception
    check    raises UsageError for what the user can mend before the training starts
    """

    package: str | None
    open: Callable[[About], Tracker]
    check: Callable[[], None] = lambda: None
