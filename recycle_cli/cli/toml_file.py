"""TOML files of options: each key an option's name, each value checked as the command line checks it."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from math import isfinite
from typing import Any

import typer

from recycle_cli.disk import expanded, read_bytes
from recycle_cli.errors import UsageError

TOML_BYTES = 1 << 20
"""Bytes of such a file at most."""


def read_toml(path: str, option: str) -> dict[str, Any]:
    """What a TOML file holds. `option`, such as --heads, named it. Raises UsageError."""
    import tomllib

    try:
        return tomllib.loads(read_bytes(expanded(path), TOML_BYTES).decode(errors="surrogateescape"))
    except OSError as error:
        raise UsageError(f"{option} {path}: {error.strerror or error}; give a TOML file") from error
    except RecursionError as error:
        raise UsageError(f"{option} {path} is nested too deeply; its tables hold single values") from error
    except ValueError as error:
        raise UsageError(f"{option} {path} is no TOML: {error}") from error


def parameters_by_key(context: typer.Context) -> dict[str, Any]:
    """The parameters of a command by the keys that name them in a file: those of options and of arguments."""
    found: dict[str, Any] = {}
    for one in context.command.params:
        if one.param_type_name == "argument":
            found[str(one.name).replace("_", "-")] = one
        else:
            found |= {name.removeprefix("--"): one for name in one.opts if name.startswith("--")}
    return found


def read_value(key: str, value: Any, parameter: Any, where: str, context: typer.Context) -> tuple[list[str], list[Any]]:
    """A value as the words that would stand on the command line, and what the command makes of each; there are several
    only for what may be repeated.

    Raises UsageError, naming the key, for a table, a date, a list in place of a single value, a truth value for
    anything but a flag, and for all that the command line refuses.
    """
    repeats = getattr(parameter, "multiple", False) or parameter.nargs == -1
    if isinstance(value, list) and not repeats:
        raise UsageError(f"{where}: {key} = {value!r}; expected a single value")
    kind = parameter.type.name.split()[0]
    members = value if isinstance(value, list) else [value]
    for one in members:
        if not isinstance(one, str | int | float) or (isinstance(one, bool) and kind != "boolean"):
            raise UsageError(f"{where}: {key} = {one!r}; expected {_NOUNS.get(kind, 'a text or a number')}")
    return [str(one) for one in members], [_converted(key, one, parameter, where, context) for one in members]


def _converted(key: str, value: Any, parameter: Any, where: str, context: typer.Context) -> Any:
    try:
        found = parameter.type.convert(str(value), parameter, context)
    except typer.BadParameter as error:
        raise UsageError(f"{where}: {key} = {value!r}: {reason(error, parameter)}") from None
    if isinstance(found, float) and not isfinite(found):
        raise UsageError(f"{where}: {key} = {value!r}: expected a finite number")
    return found


_NOUNS = {"integer": "a whole number", "int": "a whole number", "float": "a number", "boolean": "true or false"}
"""What a value is called, by the first word of its type's name; other types are texts and choices."""


def reason(error: typer.BadParameter, parameter: Any) -> str:
    """Why a value is refused, in words about numbers rather than about types."""
    said = " ".join(error.message.split()).rstrip(".")
    noun = _NOUNS.get(parameter.type.name.split()[0])
    if noun is None or " is not " not in said:
        return said
    least, most = getattr(parameter.type, "min", None), getattr(parameter.type, "max", None)
    if least is not None and most is not None:
        noun += f" from {least:g} to {most:g}"
    elif least is not None:
        noun += f" of at least {least:g}"
    elif most is not None:
        noun += f" of at most {most:g}"
    return f"{said.partition(' is not ')[0]} is not {noun}"


def unknown(key: str, known: Iterable[str], what: str) -> str:
    """The message about a key that is none of `what`'s, with the one that is nearest."""
    names = list(known)
    near = get_close_matches(key.replace("_", "-"), names, n=1)
    return f"{key!r} is no option of {what}" + (f"; did you mean {near[0]}" if near else f": {', '.join(names)}")


def of_config(path: str, context: typer.Context) -> Mapping[str, Any]:
    """The options of a --config file as a command takes them where neither its own words nor the environment say
    otherwise. Raises UsageError, naming file and key, for what is no option of the command or no value of it."""
    parameters = parameters_by_key(context)
    parameters.pop("config", None)
    found: dict[str, Any] = {}
    for key, value in read_toml(path, "--config").items():
        if key not in parameters:
            raise UsageError(f"{path}: {unknown(key, parameters, f'`{context.command_path}`')}")
        parameter = parameters[key]
        words, values = read_value(key, value, parameter, path, context)
        if getattr(parameter, "multiple", False) or parameter.nargs == -1:
            found[str(parameter.name)] = words
        else:
            found[str(parameter.name)] = values[0] if parameter.type.name == "boolean" else words[0]
    return found
