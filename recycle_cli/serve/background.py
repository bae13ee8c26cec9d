"""A server in a thread of this process, for measuring and for tests."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from recycle_cli.serve.app import Application
from recycle_cli.serve.metrics import Metrics
from recycle_cli.serve.opening import Opening
from recycle_cli.serve.running import listening, run, service_for
from recycle_cli.serve.service import Service

_DRAIN_SECONDS = 5.0


@dataclass(frozen=True)
class Background:
    """A server that answers at `url`."""

    url: str
    application: Application

    @property
    def service(self) -> Service:
        """What is served."""
        service: Service = self.application.app.state.service
        return service


@contextmanager
def in_background(opening: Opening, words: Sequence[str], keys: Sequence[bytes] = ()) -> Iterator[Background]:
    """Serve RUNs at a free port of this machine for the length of a block. `keys`: SHA-256 of the keys that are valid.

    Raises whatever loading raises.
    """
    metrics = Metrics()
    application = Application(opening.settings, metrics, keys)
    failed: list[BaseException] = []
    with listening("127.0.0.1", 0) as wire:
        thread = threading.Thread(target=_guarded(failed, lambda: run(application, wire, load, _DRAIN_SECONDS)))

        def load() -> Service:
            return service_for(opening, words, metrics)

        thread.start()
        try:
            while thread.is_alive() and application.app.state.service is None:
                time.sleep(0.02)
            if not failed:
                yield Background(f"http://127.0.0.1:{wire.getsockname()[1]}", application)
        finally:
            application.end()
            thread.join()
    if failed:
        raise failed[0]


def _guarded(failed: list[BaseException], work: Callable[[], None]) -> Callable[[], None]:
    """The work, whose failure is kept and not printed."""

    def guarded() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - it is raised again by whoever waits
            failed.append(error)

    return guarded
