"""Compare a bench with an older one and find the figures that became worse by more than their spread."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recycle_cli.bench.figures import Figure, higher_is_better
from recycle_cli.errors import DataError


@dataclass(frozen=True)
class Worse:
    """A figure that became worse, with no overlap of the old and new spread. `change_share` is -0.1 for 10% less."""

    name: str
    old: float
    new: float
    change_share: float


def read_figures(path: str) -> dict[str, Figure]:
    """Read the figures that `recycle bench --json` printed. Raises DataError if the file is something else."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        figures: Mapping[str, Mapping[str, Any]] = json.loads(text)["figures"]
        return {name: _figure(fields) for name, fields in figures.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        raise DataError(
            f"--compare {path}: {reason}; expected the JSON object that `recycle bench --json` printed"
        ) from error


def worse(old: Mapping[str, Figure], new: Mapping[str, Figure]) -> list[Worse]:
    """Figures in both benches whose new spread lies wholly on the worse side of the old one, greatest change first."""
    found = [
        Worse(name, then.median, now.median, now.median / then.median - 1)
        for name, now in new.items()
        if (then := old.get(name)) and then.median and now.median is not None and _is_worse(name, then, now)
    ]
    return sorted(found, key=lambda one: -abs(one.change_share))


def _is_worse(name: str, then: Figure, now: Figure) -> bool:
    if then.low is None or then.high is None or now.low is None or now.high is None:
        return False
    return now.high < then.low if higher_is_better(name) else now.low > then.high


def _figure(fields: Mapping[str, Any]) -> Figure:
    median, low, high = (_number(fields[name]) for name in ("median", "low", "high"))
    return Figure(median, low, high, int(fields["repetitions"]), str(fields["unit"]), fields.get("note"))


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
