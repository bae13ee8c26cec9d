"""The error boundary: what a user can cause becomes one line on stderr and an exit code."""

import errno
import json
import os
import sys
import threading
from contextlib import suppress
from typing import Any, NoReturn

import typer

from recycle_cli.cli.app import app
from recycle_cli.cli.bench import bench
from recycle_cli.cli.finetune import finetune
from recycle_cli.cli.help import Command, argument_name
from recycle_cli.cli.layers import layers
from recycle_cli.cli.plan import plan
from recycle_cli.cli.precompute import precompute
from recycle_cli.cli.predict import predict
from recycle_cli.cli.serve import serve
from recycle_cli.cli.store import store_app
from recycle_cli.cli.toml_file import reason
from recycle_cli.errors import Interrupted, PipeClosed, RankError, RecycleError, StorageError, UsageError
from recycle_cli.reports import answers_in_json, error_in_json, flush_output, say, show_json
from recycle_cli.runtime.bus_errors import end_on_bus_errors
from recycle_cli.runtime.last_word import last_word
from recycle_cli.runtime.signals import INTERRUPTED, end_quietly_on_signals, ignore_signals, raise_on_signals
from recycle_cli.runtime.streams import flush_streams

_PARSING: Any = typer.BadParameter.__mro__[2]
"""Click's ClickException, from wherever this version of Typer has it."""

for _command in (precompute, finetune, predict, serve, bench, plan, layers):
    app.command(cls=Command)(_command)
app.add_typer(store_app, name="store")

_REMEDIES = {
    errno.ENOSPC: "no space is left on the disk; free some and run the same command again",
    errno.EDQUOT: "the disk quota is used up; free some and run the same command again",
    errno.EROFS: "the disk is read-only; choose another place",
    errno.EACCES: "permission is denied; choose another place or change the permissions",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.EIO: "the disk has failed; what was finished is kept",
}
"""The words for some failures of the system, where there is more to say than its own."""

BUS_ERROR = (
    "a file was cut short while it was read, or its disk has failed or is full (SIGBUS); run `recycle store verify` on "
    "the store, then the same command again"
)


def main() -> None:
    """Run the command line; an expected failure becomes one line on stderr and its exit code."""
    raise_on_signals()
    _answer_bus_errors()
    threading.excepthook = _tell_of_thread
    try:
        code = app(sys.argv[1:] or ["--help"], standalone_mode=False)
        flush_output()
    except _PARSING as error:
        message = f"{_parsing(error) or 'name a command'} (see {_help_on(error)})"
        _fail(message, "UsageError", UsageError.exit_code, of_words=True)
    except RecycleError as error:
        _fail(str(error), type(error).__name__, error.exit_code, of_others=isinstance(error, RankError))
    except (Interrupted, typer.Abort) as stop:
        _fail(str(stop) or INTERRUPTED, "Interrupted", Interrupted.exit_code, of_others=True)
    except (PipeClosed, BrokenPipeError):
        _leave(PipeClosed.exit_code)
    except MemoryError as error:
        why = " ".join(str(error).split()) or "all is taken"
        _fail(f"not enough memory ({why}); use a smaller batch, --memory or --max-length", "MemoryError", 1)
    except OSError as error:
        # Whatever the system refuses, wherever: a disk, a folder or a stream has failed, not the program.
        where = f"{error.filename}: " if error.filename else ""
        why = _REMEDIES.get(error.errno or 0) or error.strerror or str(error) or type(error).__name__
        _fail(f"{where}{why}", StorageError.__name__, StorageError.exit_code)
    _leave(code if isinstance(code, int) else 0)


def _parsing(error: Any) -> str:
    """What was wrong with the words of a command, in one line; with its usage if an argument is missing."""
    parameter, context = getattr(error, "param", None), error.ctx
    if type(error) is typer.BadParameter and parameter is not None and context is not None:
        return f"{_given(parameter, context)}: {reason(error, parameter)}"
    message = " ".join(error.format_message().split())
    if message.startswith("Missing argument") and context is not None:
        needed = [argument_name(one) for one in context.command.params if one.param_type_name == "argument"]
        if len(needed) > 1:  # of two words that are missing, one would be named, and seldom the right one
            message = f"Missing argument: {' and '.join(needed)} are needed."
        message += f" {' '.join(context.get_usage().split())}"
    return message


def _help_on(error: Any) -> str:
    """The help option that lists what an error is about: `--help-all` if that option is hidden or unknown."""
    command = error.ctx.command if error.ctx is not None else _command_of(sys.argv[1:])
    named = getattr(error, "option_name", None)
    parameter = getattr(error, "param", None) or next((one for one in command.params if named in one.opts), None)
    hidden = parameter is None or getattr(parameter, "hidden", False)
    return "--help-all" if getattr(command, "more", 0) and hidden else "--help"


def _command_of(words: list[str]) -> Any:
    """The command that words name: some errors do not know theirs."""
    command: Any = typer.main.get_command(app)
    for word in words:
        command = getattr(command, "commands", {}).get(word, command)
    return command


def _given(parameter: Any, context: Any) -> str:
    """A parameter as the user gave it: an option, a variable of the environment, or an argument."""
    source = context.get_parameter_source(parameter.name)
    if source is not None and source.name == "ENVIRONMENT":
        return str(parameter.envvar)
    names = [name for name in (*parameter.opts, *parameter.secondary_opts) if name.startswith("--")]
    return names[0] if names else argument_name(parameter)


def _fail(message: str, kind: str, code: int, *, of_others: bool = False, of_words: bool = False) -> NoReturn:
    """End with one line and an exit code, unless another process of the same command says it; see `last_word`."""
    ignore_signals()  # also those that a launcher sends because another process has ended
    said = last_word(message, of_others=of_others, of_words=of_words)
    if said is None:
        _leave(code)
    say(f"recycle: {said}", last=True)
    if _asks_for_json():
        with suppress(RecycleError):  # stdout may be what has failed
            show_json(error_in_json(said, kind, code))
    _leave(code)


def _leave(code: int) -> NoReturn:
    """End with this code, whatever signals come now and whatever the streams no longer take."""
    end_quietly_on_signals(code)
    flush_streams()
    sys.exit(code)


def _answer_bus_errors() -> None:
    code = StorageError.exit_code
    messages = [(2, f"recycle: {BUS_ERROR}\n")]
    if _asks_for_json():
        messages.append((1, f"{json.dumps(error_in_json(BUS_ERROR, StorageError.__name__, code))}\n"))
    end_on_bus_errors(messages, code)


def _tell_of_thread(failed: threading.ExceptHookArgs) -> None:
    """What the system refuses to a library's own thread, such as TensorBoard's, is a line too, and the work goes on."""
    if isinstance(failed.exc_value, OSError):
        say(f"in the background: {' '.join(str(failed.exc_value).split())}")
    else:
        threading.__excepthook__(failed)


def _asks_for_json() -> bool:
    """Also if nothing has been parsed yet, or could be."""
    said = os.environ.get("RECYCLE_JSON", "").lower() in ("1", "true", "t", "yes", "y", "on")
    return said or "--json" in sys.argv or answers_in_json()
