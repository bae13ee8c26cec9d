"""The contract of an experiment tracker, which keeps the figures of trainings to compare them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class About:
    """The training that a tracker opens.

    folder    the RUN
    name      of the training, for people
    settings  all that decided it, digests of its data included, by dotted names
    steps     the steps that a resumed training has done; 0 for a new one
    key       the tracker's own name of this training if it was interrupted; None if the tracker does not know it yet
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
        """The tracker's own name of the training, by which a resume goes on; None if the RUN's folder is enough."""

    @property
    def where(self) -> str:
        """Where people find the figures; empty if that is the RUN."""

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Keep figures of a step; those of an evaluation may come after those of the step itself."""

    def close(self, *, finished: bool) -> None:
        """Close the tracker. `finished` is False for a training that was interrupted or has failed."""


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
