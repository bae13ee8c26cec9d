"""Compare the settings of two trainings."""

import json
from collections.abc import Mapping
from typing import Any

from recycle_cli.errors import UsageError
from recycle_cli.settings import TrainingSettings, decisive

LATER = {"label_smoothing": 0.0, "ladder_format": 1}
"""What trainings had whose settings are older than these names."""


def same_settings(then: Mapping[str, Any], now: Mapping[str, Any], where: str = "") -> None:
    """Raise UsageError naming the first setting that differs. Options that `then` does not have had their defaults."""
    defaults = {**LATER, **decisive(TrainingSettings())}
    then, now = (json.loads(json.dumps(_completed(one, defaults))) for one in (then, now))
    for name in sorted({*then, *now}):
        if then.get(name) != now.get(name):
            raise UsageError(
                f"{where}{name} was {then.get(name)} when the run began and is {now.get(name)} now; "
                "resume with what it began with, or start anew with --overwrite"
            )


def _completed(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with the defaults of those that are missing, in nested mappings too."""
    found = {**defaults, **settings}
    for name, value in defaults.items():
        if isinstance(value, Mapping) and isinstance(found[name], Mapping):
            found[name] = _completed(found[name], value)
    return found
