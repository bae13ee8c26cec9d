"""Run the server: listen, load, answer until a signal comes, then finish what is in flight."""

import asyncio
import hashlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from ipaddress import ip_address
from time import perf_counter
from typing import Any

import uvicorn

from recycle_cli.errors import StorageError, UsageError
from recycle_cli.reports import say
from recycle_cli.serve.app import Application
from recycle_cli.serve.metrics import Metrics
from recycle_cli.serve.opening import Opening, check_budget
from recycle_cli.serve.service import Service
from recycle_cli.settings import ModelSettings, ServeSettings
from recycle_cli.settings.variables import API_KEY
from recycle_cli.store import Store

_HERE = frozenset({"localhost", "127.0.0.1", "[::1]"})


def serve(
    runs: Sequence[str],
    stores: Sequence[str],
    model: ModelSettings,
    settings: ServeSettings,
    ready: Callable[[Mapping[str, Any]], None] = lambda about: None,
) -> None:
    """Serve until Ctrl-C or SIGTERM; `ready` is called with the address and the names once it answers.

    Raises UsageError for an address that anybody could ask without a key, and whatever loading raises.
    """
    keys = _keys()
    here = _is_this_machine(settings.host)
    if not here and not keys and not settings.without_key:
        raise UsageError(
            f"--host {settings.host}: whoever reaches this address could ask; set {API_KEY}, or add --without-key"
        )
    if settings.tenants and not keys:
        raise UsageError(f"--tenants: tenants are told apart by their keys; set {API_KEY}, or leave it out")
    hosts = None if keys or not here else _HERE | {settings.host.lower()}
    metrics = Metrics()
    application = Application(settings, metrics, keys, hosts)
    with listening(settings.host, settings.port) as wire:
        url = f"http://{settings.host}:{wire.getsockname()[1]}"
        say(f"listening at {url}")

        def load() -> Service:
            began = perf_counter()
            opening = Opening(model, settings, [Store.open(path) for path in stores])
            service = service_for(opening, runs, metrics)
            say(f"ready after {perf_counter() - began:.1f} s: {', '.join(service.served)}")
            ready({"url": url, "models": list(service.served)})
            return service

        run(application, wire, load, settings.drain_seconds)


def service_for(opening: Opening, words: Sequence[str], metrics: Metrics) -> Service:
    """Load what the words name, and start its threads. Raises UsageError if one text could exceed the budget of a
    batch, and whatever loading raises."""
    served = opening.served(words)
    batch_tokens = served[0].group.misses.batch_tokens
    check_budget(served, batch_tokens)
    return Service(served, opening.settings, batch_tokens, metrics)


def run(application: Application, wire: socket.socket, load: Callable[[], Service], drain_seconds: float) -> None:
    """Answer at a socket: 503 while `load` is at work, then requests, until a signal comes or loading fails."""
    config = uvicorn.Config(
        application.gate,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        ws="none",
        lifespan="off",
        timeout_keep_alive=30,
        timeout_graceful_shutdown=max(1, round(drain_seconds)),
        h11_max_incomplete_event_size=64 * 1024,
    )
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(_answer(application, wire, load, _Server(config)))


async def _answer(
    application: Application, wire: socket.socket, load: Callable[[], Service], server: "_Server"
) -> None:
    loop = asyncio.get_running_loop()

    def end() -> None:
        application.gate.draining = True
        server.should_exit = True

    application.end = lambda: loop.call_soon_threadsafe(end)
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, end)
    answering = asyncio.create_task(server.serve(sockets=[wire]))
    service: Service | None = None
    try:
        service = await asyncio.to_thread(load)
        application.app.state.service = service
        await answering
    finally:
        end()
        await answering
        application.end = lambda: None
        if service is not None:
            await asyncio.to_thread(service.close)


class _Server(uvicorn.Server):
    """Leaves signals to whoever runs it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing is captured."""
        yield


def _keys() -> list[bytes]:
    """SHA-256 of the keys that the environment names."""
    named = [key.strip() for key in os.environ.get(API_KEY, "").split(",") if key.strip()]
    if short := [key for key in named if len(key) < 16]:
        raise UsageError(f"{API_KEY}: a key has {len(short[0])} characters, expected at least 16")
    return [hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest() for key in named]


def _is_this_machine(host: str) -> bool:
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket at the address. Raises StorageError if it is taken, UsageError if there is no such address."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise UsageError(f"--host {host}: no such address ({error.strerror})") from None
    with socket.socket(family, kind, protocol) as wire:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            wire.bind(address)
        except OSError as error:
            raise StorageError(f"--host {host} --port {port} cannot be listened at ({error.strerror})") from None
        wire.listen(2048)
        yield wire
