"""A server in this process: real sockets, its event loop in a thread."""

import hashlib
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2

from recycle_cli.serve.app import Application
from recycle_cli.serve.metrics import Metrics
from recycle_cli.serve.opening import Opening, check_budget
from recycle_cli.serve.running import _listening, run
from recycle_cli.serve.service import Service
from recycle_cli.settings import ModelSettings, ServeSettings
from recycle_cli.store import Store

JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Server:
    """A running server, its address and a client."""

    url: str
    client: httpx2.Client
    application: Application

    @property
    def service(self) -> Service:
        """What is served."""
        return self.application.app.state.service

    @property
    def port(self) -> int:
        """Its port."""
        return int(self.url.rpartition(":")[2])

    def post(self, path: str, body: Any, **more: Any) -> httpx2.Response:
        """The answer to some JSON."""
        return self.client.post(path, json=body, **more)

    def samples(self, kind: str, run: str) -> float:
        """How many samples of a RUN were a `hit` or a `miss`, by the metrics."""
        wanted = f'recycle_samples_total{{kind="{kind}",run="{run}"}} '
        lines = self.client.get("/metrics").text.splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(wanted)), 0.0)


@contextmanager
def serving(
    words: Sequence[str],
    stores: Sequence[str] = (),
    settings: ServeSettings = ServeSettings(),  # noqa: B008 - frozen
    keys: Sequence[str] = (),
) -> Iterator[Server]:
    """Serve RUNs and models from stores for the length of a block."""
    metrics, failed = Metrics(), []
    digests = [hashlib.sha256(key.encode()).digest() for key in keys]
    application = Application(settings, metrics, digests, None)

    def load() -> Service:
        opened = [Store.open(str(store)) for store in stores]
        served = Opening(ModelSettings(), settings, opened).served([str(word) for word in words])
        batch_tokens = served[0].group.misses.batch_tokens
        check_budget(served, batch_tokens)
        return Service(served, settings, batch_tokens, metrics)

    with _listening("127.0.0.1", 0) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"

        def answer() -> None:
            try:
                run(application, listening, load, 5.0)
            except BaseException as error:  # noqa: BLE001 - raised again below
                failed.append(error)

        thread = threading.Thread(target=answer)
        thread.start()
        headers = {"Authorization": f"Bearer {keys[0]}"} if keys else {}
        with httpx2.Client(base_url=url, headers=headers, timeout=60) as client:
            try:
                while thread.is_alive() and application.app.state.service is None:
                    time.sleep(0.02)
                if not failed:
                    yield Server(url, client, application)
            finally:
                application.end()
                thread.join()
        if failed:
            raise failed[0]
