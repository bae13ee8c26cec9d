"""A settings field that is an option of the command line as well: its default, help, bounds and marks in one place."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal, get_args

Panel = Literal[
    "Data",
    "Model and cut",
    "Training",
    "Freezing",
    "Task",
    "Adapters",
    "Images",
    "Store",
    "Measuring",
    "Serving",
    "Options",
    "Output",
]

PANELS: tuple[str, ...] = get_args(Panel)
"""The panels of a help screen, from top to bottom."""

REQUIRED: Any = MISSING
"""The default of an option that must be given."""

_KEY = "option"


@dataclass(frozen=True)
class Option:
    """An option of the command line, beside its type and default, which are those of the field.

    name            without dashes; None for the field's own name
    choices         the values it may have, if the type does not list them
    parser          reads the value from text; raises ValueError with a message for people
    usual           `--help` shows it; the others appear with `--help-all`
    per_head        each head of a --heads file may choose its own value
    changes_result  False for an option that a resumed training may change
    repeated        False for an option of a single call, such as --resume: a command that repeats a run leaves it out
    """

    help: str
    panel: Panel
    name: str | None = None
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    parser: Callable[[str], Any] | None = None
    usual: bool = False
    per_head: bool = False
    changes_result: bool = True
    repeated: bool = True


def option(default: Any, help: str, panel: Panel, **more: Any) -> Any:
    """A dataclass field that is an option too; `more` are arguments of `Option`."""
    return field(default=default, metadata={_KEY: Option(help, panel, **more)})


def same(settings: type, name: str, **changes: Any) -> Any:
    """A field with the default and the `Option` of another settings class, but for `changes` to either."""
    one: Field[Any] = settings.__dataclass_fields__[name]  # type: ignore[attr-defined]
    default = changes.pop("default", one.default)
    return field(default=default, metadata={_KEY: replace(one.metadata[_KEY], **changes)})


def option_of(one: "Field[Any]") -> Option | None:
    """The option of a field, with its name filled in; None for a field that is no option."""
    found: Option | None = one.metadata.get(_KEY)
    return found and replace(found, name=found.name or one.name.replace("_", "-"))


def options_of(settings: type) -> Mapping[str, "Field[Any]"]:
    """The fields that are options, by the option's name; those of nested settings stand in their place."""
    found: dict[str, Field[Any]] = {}
    for one in fields(settings):
        if isinstance(one.type, type) and is_dataclass(one.type):
            found |= options_of(one.type)
        elif (about := option_of(one)) is not None:
            found[str(about.name)] = one
    return found


@dataclass(frozen=True)
class Given:
    """An option with its value, and the default that it would have."""

    option: Option
    value: Any
    default: Any

    @property
    def name(self) -> str:
        """As on the command line, without dashes."""
        return str(self.option.name)

    @property
    def is_changed(self) -> bool:
        """Whether the value is not the default."""
        return bool(self.value != self.default)


def each_option(settings: Any) -> Iterator[Given]:
    """The options of settings with their values; those of nested settings stand in their place."""
    for one in fields(settings):
        value, about = getattr(settings, one.name), option_of(one)
        if is_dataclass(value):
            yield from each_option(value)
        elif about is not None:
            yield Given(about, value, one.default)


def changed_options(settings: Any) -> list[str]:
    """The options, as they are written on the command line, whose values are not their defaults."""
    return [f"--{one.name}" for one in each_option(settings) if one.is_changed]


def same_for_all_heads(settings: Any) -> dict[str, Any]:
    """The options that are the same for all heads which train together, with their values, by their names on the
    command line."""
    return {one.name: one.value for one in each_option(settings) if not one.option.per_head}


def decisive(settings: Any) -> dict[str, Any]:
    """The fields that a result depends on, as `dataclasses.asdict` gives them."""
    found: dict[str, Any] = {}
    for one in fields(settings):
        about = option_of(one)
        if about is None or about.changes_result:
            value = getattr(settings, one.name)
            found[one.name] = decisive(value) if is_dataclass(value) else value
    return found
