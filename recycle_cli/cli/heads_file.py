"""The file of `finetune --heads`: the heads that train together, each option written as on the command line."""

from collections.abc import Mapping
from typing import Any

import typer

from recycle_cli.cli.toml_file import parameters_by_key, read_toml, read_value, unknown
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


def head_settings(path: str, context: typer.Context) -> list[HeadSettings]:
    """The heads of a TOML file. A head's own key comes before one at the top, and that before the command line.

    Raises UsageError, naming file, head and key, for what is no option, no value of it, or not a head's to choose.
    """
    content = read_toml(path, "--heads")
    tables = content.pop("head", None)
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise UsageError(f"{path}: no [[head]] in it; give each head a table [[head]] with a name")
    shared = {**context.params, **_values(content, path, AT_THE_TOP, context)}
    shared["order_seed"] = shared["seed"] if shared["order_seed"] is None else shared["order_seed"]
    return [_head(table, f"{path}, head {number}", shared, context) for number, table in enumerate(tables, 1)]


def _head(table: dict[str, Any], where: str, shared: Mapping[str, Any], context: typer.Context) -> HeadSettings:
    from recycle_cli.training import check_head_name

    name = table.pop("name", None)
    try:
        check_head_name(name)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None
    options = {**shared, **_values(table, f"{where} ({name})", OF_A_HEAD, context)}
    return HeadSettings(name, training_settings(options), options["label_column"])


def _values(table: Mapping[str, Any], where: str, known: tuple[str, ...], context: typer.Context) -> dict[str, Any]:
    """Values by the names of the command's parameters, checked as the command line checks them."""
    parameters = parameters_by_key(context)
    found: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            raise UsageError(f"{where}: {_refused(key, known)}")
        parameter = parameters[key]
        _, (found[str(parameter.name)],) = read_value(key, value, parameter, where, context)
    return found


def _refused(key: str, known: tuple[str, ...]) -> str:
    if key in AT_THE_TOP:
        return f"{key} is the same for all heads, which train on the same batches; set it at the top of the file"
    return unknown(key, known, "a head")
