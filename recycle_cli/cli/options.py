"""A command's options made of settings fields, and settings made of what was parsed."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import wraps
from math import isfinite
from typing import Annotated, Any, Literal, TypeVar, cast, get_origin

import typer

from recycle_cli.cli.environment import tell_misspelt, variable_of
from recycle_cli.errors import PipeClosed, UsageError
from recycle_cli.reports import answer_in_json, be_quiet
from recycle_cli.settings.option import PANELS, Option, Panel, option_of, options_of

Asked = Mapping[str, Any]
"""What a command was asked for: the values by its parameters' names."""

S = TypeVar("S")


def with_options(
    *settings: type, leave_out: Sequence[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a function a command with the options of the settings, but for those in `leave_out`, --json and --quiet.

    A parameter of the function's own replaces an option of the same name. The function is called with its parameters,
    and with all values as `asked`.
    """

    def declare(function: Callable[..., None]) -> Callable[..., None]:
        mine = {name: one for name, one in inspect.signature(function).parameters.items() if name != "asked"}
        found = {name: one for kind in settings for name, one in options_of(kind).items() if name not in leave_out}
        parameters = [one.replace(kind=one.KEYWORD_ONLY) for one in mine.values()]
        parameters += [_parameter(name, one) for name, one in found.items() if _snake(name) not in mine]
        parameters += [_flag("as_json", _JSON), _flag("quiet", _QUIET), _CONFIG_PARAMETER]

        @wraps(function)
        def run(**asked: Any) -> None:
            be_quiet(asked["quiet"])
            answer_in_json(asked["as_json"])
            tell_misspelt()
            for name, value in asked.items():
                check_number(name, value)
            try:
                function(**{name: asked[name] for name in mine}, asked=asked)
            except BrokenPipeError as error:
                raise PipeClosed from error

        vars(run)["__signature__"] = inspect.Signature(sorted(parameters, key=_place))
        run.__annotations__ = {one.name: one.annotation for one in parameters}
        return run

    return declare


def _from_file(context: typer.Context, value: str | None) -> str | None:
    """Let a --config file answer for the options that neither the command line nor the environment gives."""
    if value is not None and not context.resilient_parsing:
        from recycle_cli.cli.toml_file import of_config

        context.default_map = dict(of_config(value, context))
    return value


def own(name: str, help: str, panel: Panel = "Options", *, usual: bool = True, **more: Any) -> Any:
    """An option that only one command has, declared beside its parameter; `more` are arguments of `Option`."""
    return _typer_option(name, Option(help, panel, usual=usual, **more))


def check_number(name: str, value: Any) -> None:
    """Raise UsageError for the value nan or inf of the parameter `name`: they pass every bound that an option has."""
    if isinstance(value, float) and not isfinite(value):
        raise UsageError(f"--{name.replace('_', '-')} {value}: expected a finite number")


def filled(settings: type[S], asked: Asked, **given: Any) -> S:
    """Settings from the parsed options; `given` fields come first, an option that was not given has its default."""
    for one in fields(cast(Any, settings)):
        about = option_of(one)
        if one.name in given:
            continue
        if isinstance(one.type, type) and is_dataclass(one.type):
            given[one.name] = filled(one.type, asked)
        elif about is not None and (value := value_of(str(about.name), asked)) is not None:
            given[one.name] = tuple(value) if isinstance(value, list) else value
    return settings(**given)


def value_of(name: str, asked: Asked) -> Any:
    """The value of an option by its name; None if it was not given and has no default, or is none of the command's."""
    return asked.get(_snake(name))


def _typer_option(name: str, option: Option, *, negative: bool = False, **more: Any) -> Any:
    """An option that also reads RECYCLE_<NAME> from the environment; `negative` adds --no-<name>."""
    return typer.Option(
        f"--{name}/--no-{name}" if negative else f"--{name}",
        help=option.help,
        envvar=variable_of(name),
        hidden=not option.usual,
        rich_help_panel=option.panel,
        min=option.minimum,
        max=option.maximum,
        parser=option.parser and _told(option.parser),
        **more,
    )


def _parameter(name: str, one: "Field[Any]") -> inspect.Parameter:
    """A settings field as a parameter that Typer reads."""
    about = cast(Option, option_of(one))
    kind: Any = one.type
    default: Any = inspect.Parameter.empty if one.default is MISSING else one.default
    if about.choices:
        kind = cast(Any, Literal)[about.choices] if default is not None else cast(Any, Literal)[about.choices] | None
    elif about.parser:
        # A parser reads text alone: the default is left to `filled`.
        kind, default = str | None, default if default is inspect.Parameter.empty else None
    elif get_origin(kind) is tuple:
        kind, default = list[str], list(default)
    annotation: Any = cast(Any, Annotated)[kind, _typer_option(name, about, negative=default is True)]
    return inspect.Parameter(_snake(name), inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _told(parser: Callable[[str], Any]) -> Callable[[str], Any]:
    """The parser, with its ValueError turned into the error that Typer shows."""

    @wraps(parser)
    def parse(text: str) -> Any:
        try:
            return parser(text)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None

    return parse


def _place(parameter: inspect.Parameter) -> tuple[int, bool]:
    """Arguments first, then options by their panels, in each the usual ones first."""
    annotated = get_origin(parameter.annotation) is Annotated
    about: Any = parameter.annotation.__metadata__[0] if annotated else None
    panel = getattr(about, "rich_help_panel", None)
    return (-1, False) if panel is None else (PANELS.index(panel), about.hidden)


def _snake(name: str) -> str:
    return name.replace("-", "_")


def _flag(name: str, option: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Annotated[bool, option])


_JSON = own("json", "Print the result as one JSON object on stdout.", "Output")
_QUIET = own("quiet", "Show the result alone, without progress.", "Output")
_CONFIG = _typer_option(
    "config",
    Option("Take options that are given in no other way from this TOML file, such as epochs = 3.", "Output"),
    callback=_from_file,
    is_eager=True,
)
_CONFIG_PARAMETER = inspect.Parameter(
    "config", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, _CONFIG]
)
