"""A Ray cluster: joining it or making one, and dividing its CPUs and GPUs among workers."""

import importlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recycle_cli.errors import RecycleError, UsageError
from recycle_cli.reports import spinner
from recycle_cli.runtime.threads import usable_cores
from recycle_cli.settings import EngineSettings

OBJECT_STORE_BYTES = 100 * 2**20
"""Of a cluster made for the command: counts and messages are all that passes through it."""

REACHED_SECONDS = 10.0
"""How long a cluster's address may take to accept a connection."""


@dataclass(frozen=True)
class Division:
    """How many workers there are to be, and the CPUs and the share of a GPU that each takes."""

    workers: int
    cpus: int
    gpus: float


def divided(nodes: Sequence[Mapping[str, float]], asked: int | None, device: str) -> Division:
    """Divide the nodes' resources (`CPU`, `GPU`) among `asked` workers, or one a GPU, or one a CPU.

    Each gets as many CPUs as all of them can have. If the cluster has too few, some of them wait for room.
    """
    cpus = [int(node.get("CPU", 0)) for node in nodes]
    gpus = sum(int(node.get("GPU", 0)) for node in nodes)
    on_gpus = device.startswith("cuda") or (device == "auto" and gpus > 0)
    workers = asked or (gpus if on_gpus else sum(cpus)) or 1
    fitting = [each for each in range(1, max(cpus, default=0) + 1) if sum(own // each for own in cpus) >= workers]
    share = 1 / -(-workers // gpus) if on_gpus and gpus else float(on_gpus)
    return Division(workers, max(fitting, default=1), share)


@contextmanager
def joined(engine: EngineSettings) -> Iterator[Any]:
    """The module `ray`, connected to a cluster until the block ends. Raises UsageError if that cannot be."""
    try:
        ray = importlib.import_module("ray")
    except ImportError as error:
        raise UsageError("--engine ray needs a package: pip install 'recycle-cli[ray]'") from error
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report the use of Ray to its makers
    address = engine.address or os.environ.get("RAY_ADDRESS")
    with _stdout_kept():
        with spinner("starting Ray" if address is None else f"joining the Ray cluster {address}"), _own_signals():
            _init(ray, address, engine.workers)
        try:
            yield ray
        finally:
            ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raise UsageError if nobody listens at HOST:PORT, of which Ray would take two minutes to convince itself."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=REACHED_SECONDS).close()
    except OSError as error:
        raise UsageError(
            f"--address {address}: no Ray cluster can be joined there ({error.strerror or error})"
        ) from None


def _init(ray: Any, address: str | None, workers: int | None) -> None:
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address is None:
        cpus = max(workers or 0, usable_cores())
        options |= {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    else:
        _check_reachable(address)
    try:
        ray.init(address or "local", **options)
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        if address is None:
            raise RecycleError(f"Ray cannot be started here ({reason})") from error
        raise UsageError(f"--address {address}: no Ray cluster can be joined there ({reason})") from error


@contextmanager
def _stdout_kept() -> Iterator[None]:
    """Keep stdout for the result: Ray's threads print there what has befallen a worker, which we tell ourselves."""
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        yield


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep the handlers of Ctrl-C and SIGTERM, which Ray would replace."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def nodes_of(ray: Any) -> list[Mapping[str, Any]]:
    """The nodes that are alive, each with its `NodeID` and `Resources`."""
    return [node for node in ray.nodes() if node["Alive"]]
