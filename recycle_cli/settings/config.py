"""Write options out: as the TOML file that `--config` reads, or as words of a command line."""

import json
from dataclasses import replace
from typing import Any

from recycle_cli.settings.option import Given, each_option
from recycle_cli.settings.verbs import Job


def config_of(job: Job, *more: Any) -> str:
    """The TOML by which `recycle finetune --config` repeats a fine-tuning. `more`: the settings of model and training.

    Options without a value are left out, and so are those of a single call, such as --resume.
    """
    values: dict[str, Any] = {"data": list(job.data.source)}
    if job.store is not None:
        values["store"] = job.store
    if job.evaluation is not None:
        (values["eval"],) = job.evaluation.source
    # The records of an evaluation are read with the options of the training's.
    for settings in (replace(job, evaluation=None), *more):
        values |= _values_of(settings)
    if job.store is not None and not job.model_named:
        values.pop("model", None)  # the store's own is taken
    return "".join(f"{name} = {_toml(value)}\n" for name, value in values.items())


def words_of(*settings: Any) -> list[str]:
    """The options that differ from their defaults, as words of a command line, without those of a single call."""
    changed = [one for each in settings for one in each_option(each) if one.is_changed and one.option.repeated]
    return [word for one in changed for word in _words(one)]


def _words(one: Given) -> list[str]:
    name = f"--{one.name}"
    if isinstance(one.value, bool):
        return [name if one.value else f"--no-{one.name}"]
    if _may_be_repeated(one):
        return [word for value in one.value for word in (name, str(value))]
    return [name, str(_single(one))]


def _values_of(settings: Any) -> dict[str, Any]:
    """The options of settings, nested ones included, by their names, as the command line takes them."""
    found: dict[str, Any] = {}
    for one in each_option(settings):
        if one.option.repeated and one.value is not None:
            if _may_be_repeated(one):
                found[one.name] = list(one.value)
            elif one.value != ():
                found[one.name] = _single(one)
    return found


def _may_be_repeated(one: Given) -> bool:
    """Whether an option has a list of values, each given on its own."""
    return isinstance(one.value, tuple) and one.option.parser is None


def _single(one: Given) -> Any:
    """A value as the command line takes it: several values are one text, with commas between them."""
    return ",".join(map(str, one.value)) if isinstance(one.value, tuple) else one.value


def _toml(value: Any) -> str:
    """A value in TOML, whose texts and lists are those of JSON but for the delete character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
