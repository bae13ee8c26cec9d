"""The real command, in a process of its own each time, without paying its imports each time.

A server with the imports done forks a child a command. The child runs `recycle_cli.__main__.main` on the arguments,
working folder and environment it is given, and can be killed as any process can.
"""

import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOREIGN = ("RECYCLE_", "AWS_", "GOOGLE_", "AZURE_")
"""Variables of whoever runs the tests that would change what a command does."""


@dataclass(frozen=True)
class Done:
    """A command that has ended: its exit code (negative: the signal that ended it) and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON object on stdout."""
        (line,) = self.out.splitlines()
        return json.loads(line)


class Running:
    """A command that was started."""

    def __init__(self, server: "Commands", pid: int, out: Path, err: Path) -> None:
        self.server, self.pid, self._out, self._err = server, pid, out, err

    @property
    def ended(self) -> bool:
        """Whether it has ended by itself; Linux alone tells before it is waited for, elsewhere False."""
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            return False

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self) -> Done:
        status = self.server.ask({"wait": self.pid})
        code = os.waitstatus_to_exitcode(status)
        return Done(code, self._out.read_text(encoding="utf-8"), self._err.read_text(encoding="utf-8"))


class Commands:
    """Runs `recycle` with arguments: `commands("predict", data, run, "--json")`."""

    def __init__(self) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        self._folder = tempfile.TemporaryDirectory(prefix="recycle-commands-")
        self._count = 0
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.commands"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
            env=environment | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        )
        assert self._server.stdout is not None
        assert json.loads(self._server.stdout.readline()) == "ready"

    def ask(self, request: dict[str, Any]) -> Any:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())

    def start(
        self,
        *arguments: object,
        cwd: Path | None = None,
        env: dict[str, str] | None = None,
        stdin: str | bytes | None = None,
        unread: bool = False,
    ) -> Running:
        """Start a command. `unread`: its stdout is a pipe that nobody reads any more."""
        self._count += 1
        out, err = (Path(self._folder.name, f"{self._count}.{kind}") for kind in ("out", "err"))
        for path in (out, err):
            path.touch()  # it may be killed before it opens them
        given = os.devnull
        if stdin is not None:
            given = str(Path(self._folder.name, f"{self._count}.in"))
            Path(given).write_bytes(stdin if isinstance(stdin, bytes) else stdin.encode())
        argv = ["recycle", *map(str, arguments)]
        where = str(cwd or self._folder.name)
        streams = {"in": given, "out": str(out), "err": str(err), "unread": unread}
        pid = self.ask({"argv": argv, "cwd": where, "env": env or {}, **streams})
        return Running(self, pid, out, err)

    def __call__(self, *arguments: object, **options: Any) -> Done:
        return self.start(*arguments, **options).wait()

    def json(self, *arguments: object, **options: Any) -> Any:
        """The result of a command that must succeed."""
        done = self(*arguments, "--json", **options)
        assert done.code == 0, done.err
        return done.json

    def killed(self, *arguments: object, after: float, number: int = signal.SIGKILL, **options: Any) -> Done:
        """The command, with a signal after so many seconds."""
        running = self.start(*arguments, **options)
        end = time.monotonic() + after
        while time.monotonic() < end and not running.ended:
            time.sleep(0.002)
        running.send(number)  # to no effect on one that has ended, which is not waited for yet
        return running.wait()

    def close(self) -> None:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait()
        self._server.stdout.close()
        self._folder.cleanup()


def serve() -> dict[str, Any]:
    """Fork a child a request until the requests end. Returns the request in the child, and does not otherwise."""
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            print(json.dumps(os.waitpid(request["wait"], 0)[1]), flush=True)
        elif pid := os.fork():
            print(json.dumps(pid), flush=True)
        else:
            return request
    os._exit(0)


def become(request: dict[str, Any]) -> None:
    """Take on the request's streams, folder, environment and arguments."""
    files = [request["in"], request["out"], request["err"]]
    for number, path in enumerate(files):
        handle = os.open(path, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(handle, number)
        os.close(handle)
    if request["unread"]:
        reader, writer = os.pipe()
        os.close(reader)
        os.dup2(writer, 1)
        os.close(writer)
    os.chdir(request["cwd"])
    os.environ.update(request["env"])
    sys.argv = request["argv"]


def preload() -> None:
    """Import what the commands import, and load a model once, but compute nothing: a fork keeps no threads."""
    import pyarrow.parquet
    import torchmetrics.functional.classification
    from typer.testing import CliRunner

    import recycle_cli.verbs.finetune
    import recycle_cli.verbs.predict
    from recycle_cli.cli.main import app
    from recycle_cli.models import load
    from tests.conftest import save_tiny, tiny_config

    assert all((pyarrow, torchmetrics, recycle_cli.verbs.finetune, recycle_cli.verbs.predict))
    CliRunner().invoke(app, ["precompute", "none", "none", "--limit", "0"])
    with tempfile.TemporaryDirectory() as folder:
        load(str(save_tiny(Path(folder), tiny_config(), bare=True)), labels=["a", "b"])


if __name__ == "__main__":
    from recycle_cli.__main__ import main

    preload()
    gc.freeze()
    print(json.dumps("ready"), flush=True)
    become(serve())
    try:
        main()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:  # noqa: BLE001 - as Python itself ends a program
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    os._exit(code)  # taking down all that was imported would cost more than most commands
