"""The file of `finetune --heads`: the heads that train together, each option written as on the command line."""

import re
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from math import isfinite
from pathlib import Path
from typing import Any

import typer

from recycle_cli.cli.training import training_settings
from recycle_cli.errors import UsageError
from recycle_cli.settings import TASKS, CorpusSettings, HeadSettings, TrainingSettings
from recycle_cli.settings.option import option_of, options_of

_KINDS: tuple[type, ...] = (TrainingSettings, *TASKS.values())

_TRAINING = {name: one for kind in _KINDS for name, one in options_of(kind).items()}

OF_A_HEAD = tuple(
    name
    for name, one in {**options_of(CorpusSettings), **_TRAINING}.items()
    if (about := option_of(one)) is not None and about.per_head
)
"""The options that each head may choose; at the top of the file they are for all heads that do not."""

AT_THE_TOP = tuple(dict.fromkeys((*OF_A_HEAD, *_TRAINING)))
"""The options that the top of the file may have: those of a head, and those that are the same for all heads."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def head_settings(path: str, context: typer.Context) -> list[HeadSettings]:
    """The heads of a TOML file. A head's own key comes before one at the top, and that before the command line.

    Raises UsageError, naming file, head and key, for what is no option, no value of it, or not a head's to choose.
    """
    content = _read(path)
    tables = content.pop("head", None)
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise UsageError(f"{path}: no [[head]] in it; give each head a table [[head]] with a name")
    shared = {**context.params, **_values(content, path, AT_THE_TOP, context)}
    shared["order_seed"] = shared["seed"] if shared["order_seed"] is None else shared["order_seed"]
    heads = [_head(table, f"{path}, head {number}", shared, context) for number, table in enumerate(tables, 1)]
    seen: set[str] = set()
    for head in heads:
        if head.name.lower() in seen:
            raise UsageError(
                f"{path}: two heads have the name {head.name!r}; each RUN is OUTPUT/NAME, so name each anew"
            )
        seen.add(head.name.lower())
    return heads


def _head(table: dict[str, Any], where: str, shared: Mapping[str, Any], context: typer.Context) -> HeadSettings:
    name = table.pop("name", None)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UsageError(
            f"{where}: name = {name!r}; expected letters, digits, '.', '_' and '-': its RUN is OUTPUT/NAME"
        )
    options = {**shared, **_values(table, f"{where} ({name})", OF_A_HEAD, context)}
    return HeadSettings(name, training_settings(options), options["label_column"])


def _read(path: str) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--heads {path}: {error.strerror}; give a TOML file") from error
    except ValueError as error:
        raise UsageError(f"--heads {path} is no TOML: {error}") from error


def _values(table: Mapping[str, Any], where: str, known: tuple[str, ...], context: typer.Context) -> dict[str, Any]:
    """Values by the names of the command's parameters, checked as the command line checks them."""
    parameters = {name.removeprefix("--"): one for one in context.command.params for name in one.opts}
    found: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            raise UsageError(f"{where}: {_refused(key, known)}")
        parameter = parameters[key]
        if isinstance(value, list | dict):
            raise UsageError(f"{where}: {key} = {value!r}; expected a single value")
        try:
            converted = found[str(parameter.name)] = parameter.type.convert(str(value), parameter, context)
        except typer.BadParameter as error:
            raise UsageError(f"{where}: {key} = {value!r}: {' '.join(error.message.split())}") from None
        if isinstance(converted, float) and not isfinite(converted):
            raise UsageError(f"{where}: {key} = {value!r}: expected a finite number")
    return found


def _refused(key: str, known: tuple[str, ...]) -> str:
    if key in AT_THE_TOP:
        return f"{key} is the same for all heads, which train on the same batches; set it at the top of the file"
    near = get_close_matches(key.replace("_", "-"), known, n=1)
    return f"{key!r} is no option of a head" + (f"; did you mean {near[0]}" if near else f": {', '.join(known)}")
