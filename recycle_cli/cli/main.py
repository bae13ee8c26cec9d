"""The error boundary: what a user can cause becomes one line on stderr and an exit code."""

import errno
import json
import os
import sys
from typing import Any

import typer

from recycle_cli.cli.app import app
from recycle_cli.cli.bench import bench
from recycle_cli.cli.finetune import finetune
from recycle_cli.cli.help import Command, argument_name
from recycle_cli.cli.layers import layers
from recycle_cli.cli.plan import plan
from recycle_cli.cli.precompute import precompute
from recycle_cli.cli.predict import predict
from recycle_cli.cli.store import store_app
from recycle_cli.cli.toml_file import reason
from recycle_cli.errors import Interrupted, PipeClosed, RecycleError, UsageError
from recycle_cli.reports import say
from recycle_cli.runtime.signals import raise_on_signals

_PARSING: Any = typer.BadParameter.__mro__[2]
"""Click's ClickException, from wherever this version of Typer has it."""

for _command in (precompute, finetune, predict, bench, plan, layers):
    app.command(cls=Command)(_command)
app.add_typer(store_app, name="store")

INTERRUPTED = "interrupted; what was finished is kept: the same command goes on (finetune with --resume)"

_DISK = {
    errno.ENOSPC: "no space is left on the disk; free some and run the same command again",
    errno.EDQUOT: "the disk quota is used up; free some and run the same command again",
    errno.EROFS: "the disk is read-only; choose another place",
    errno.EACCES: "permission is denied; choose another place or change the permissions",
}


def main() -> None:
    """Run the command line; an expected failure becomes one line on stderr and its exit code."""
    raise_on_signals()
    try:
        code = app(sys.argv[1:] or ["--help"], standalone_mode=False)
    except typer.Abort:
        _fail(INTERRUPTED, "Interrupted", Interrupted.exit_code)
    except _PARSING as error:
        _fail(f"{_parsing(error) or 'name a command'} (see --help)", "UsageError", UsageError.exit_code)
    except RecycleError as error:
        _fail(str(error), type(error).__name__, error.exit_code)
    except Interrupted as stop:
        _fail(str(stop) or INTERRUPTED, "Interrupted", stop.exit_code)
    except PipeClosed as stop:
        # What is still in the buffer has no reader, and is not to be tried again as the process ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(stop.exit_code)
    except MemoryError as error:
        reason = " ".join(str(error).split()) or "all is taken"
        _fail(f"not enough memory ({reason}); use a smaller batch, --memory or --max-length", "MemoryError", 1)
    except OSError as error:
        if error.errno not in _DISK:
            raise
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{_DISK[error.errno]}", "StorageError", 4)
    sys.exit(code if isinstance(code, int) else 0)


def _parsing(error: Any) -> str:
    """What was wrong with the words of a command, in one line; with its usage if an argument is missing."""
    parameter, context = getattr(error, "param", None), error.ctx
    if type(error) is typer.BadParameter and parameter is not None and context is not None:
        return f"{_given(parameter, context)}: {reason(error, parameter)}"
    message = " ".join(error.format_message().split())
    if message.startswith("Missing argument") and context is not None:
        message += f" {' '.join(context.get_usage().split())}"
    return message


def _given(parameter: Any, context: Any) -> str:
    """A parameter as the user gave it: an option, a variable of the environment, or an argument."""
    source = context.get_parameter_source(parameter.name)
    if source is not None and source.name == "ENVIRONMENT":
        return str(parameter.envvar)
    names = [name for name in (*parameter.opts, *parameter.secondary_opts) if name.startswith("--")]
    return names[0] if names else argument_name(parameter)


def _fail(message: str, kind: str, code: int) -> None:
    say(f"recycle: {message}")
    if "--json" in sys.argv or os.environ.get("RECYCLE_JSON", "").lower() in ("1", "true", "t", "yes", "y", "on"):
        print(json.dumps({"error": {"kind": kind, "message": message, "exit_code": code}}), flush=True)
    sys.exit(code)
