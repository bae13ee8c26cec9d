"""The log of a training: a line for each record in metrics.jsonl, and the trackers that were asked for."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recycle_cli.errors import DamageError
from recycle_cli.runs.checkpoint import steps_of
from recycle_cli.runs.folder import ANEW, LOG
from recycle_cli.runs.trackers import About, installed, tracking

Log = Callable[[Mapping[str, Any]], None]


def ignore(record: Mapping[str, Any]) -> None:
    """A log that keeps nothing."""


@contextmanager
def logger(folder: Path, trackers: Sequence[str], name: str, settings: Mapping[str, Any]) -> Iterator[Log]:
    """A function that logs a record of a step, an evaluation or an epoch; that of an epoch goes to the trackers alone.

    name      of the training in the trackers
    settings  all that decided the training, for the trackers
    """
    about = About(folder, name, dict(_flat(settings)), steps_of(folder))
    with tracking(trackers, about) as track, (folder / LOG).open("a", encoding="utf-8") as lines:

        def log(record: Mapping[str, Any]) -> None:
            if "epoch_loss" not in record:
                lines.write(json.dumps(record) + "\n")
                lines.flush()
            track(record["step"], figures_of(record))

        yield log


def chosen_trackers(named: Sequence[str], tensorboard: bool) -> list[str]:
    """The trackers that were named, each once, and with `tensorboard` also TensorBoard if it is installed."""
    usual = ["tensorboard"] if tensorboard and installed("tensorboard") else []
    return list(dict.fromkeys([*named, *usual]))


def figures_of(record: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a record by the names that trackers have for them, `train/loss` or `evaluation/loss`."""
    kind, figures = ("evaluation", record["evaluation"]) if "evaluation" in record else ("train", record)
    found = {f"{kind}/{name}": value for name, value in figures.items() if isinstance(value, float)}
    return {"epoch": record["epoch"], **found}


def _flat(settings: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by dotted names; values other than texts, numbers and flags become text."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value if isinstance(value, str | int | float) else str(value)


def last_loss(folder: Path) -> float:
    """The loss of the last step in the log. Raises DamageError if it holds none."""
    path = folder / LOG
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return float(next(record["loss"] for record in map(json.loads, reversed(lines)) if "loss" in record))
    except (ValueError, TypeError, StopIteration) as error:
        raise DamageError(f"{path} is damaged (it has no loss of the last step); {ANEW}") from error
