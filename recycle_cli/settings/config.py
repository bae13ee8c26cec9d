"""What was asked for as the TOML file that `--config` reads: every option under its name, with its value."""

import json
from dataclasses import fields, is_dataclass
from typing import Any

from recycle_cli.settings.option import option_of
from recycle_cli.settings.verbs import Job


def config_of(job: Job, *more: Any) -> str:
    """A fine-tuning as TOML: `recycle finetune --config` repeats it. Options without a value are left out, and so are
    those that are about one call alone, such as --resume. `more`: the settings of its model and of its training."""
    values: dict[str, Any] = {"data": list(job.data.source)}
    if job.store is not None:
        values["store"] = job.store
    if job.evaluation is not None:
        (values["eval"],) = job.evaluation.source
    for settings in (job.data, job, *more):
        values |= _values_of(settings)
    if job.store is not None and not job.model_named:
        values.pop("model", None)  # the store's own is taken
    return "".join(f"{name} = {_toml(value)}\n" for name, value in values.items())


def _values_of(settings: Any) -> dict[str, Any]:
    """The options of settings, nested ones included, by their names, as the command line takes them."""
    found: dict[str, Any] = {}
    for one in fields(settings):
        value, about = getattr(settings, one.name), option_of(one)
        if about is None:
            # What a fine-tuning is about has settings of its own: the corpora are read before.
            if is_dataclass(value) and one.name not in ("data", "evaluation"):
                found |= _values_of(value)
        elif about.repeated and value is not None:
            name = str(about.name)
            if not isinstance(value, tuple):
                found[name] = value
            elif about.parser is None:
                found[name] = list(value)
            elif value:
                found[name] = ",".join(map(str, value))
    return found


def _toml(value: Any) -> str:
    """A value in TOML, whose texts and lists are those of JSON but for the delete character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
