"""Whether two trainings have the same settings."""

import json
from collections.abc import Mapping
from typing import Any

from recycle_cli.errors import UsageError
from recycle_cli.settings import TrainingSettings, decisive


def same_settings(then: Mapping[str, Any], now: Mapping[str, Any], where: str = "") -> None:
    """Raise UsageError naming the first setting that differs. An option that there was not yet had its default."""
    defaults = decisive(TrainingSettings())
    then, now = (json.loads(json.dumps(_completed(one, defaults))) for one in (then, now))
    for name in sorted({*then, *now}):
        if then.get(name) != now.get(name):
            raise UsageError(
                f"{where}{name} was {then.get(name)} when the run began and is {now.get(name)} now; "
                "resume with what it began with, or start anew with --overwrite"
            )


def _completed(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, and of the defaults those that they lack, in mappings inside them too."""
    found = {**defaults, **settings}
    for name, value in defaults.items():
        if isinstance(value, Mapping) and isinstance(found[name], Mapping):
            found[name] = _completed(found[name], value)
    return found
