"""A server in this process: real sockets, its event loop in a thread."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2

from recycle_cli.serve.app import Application
from recycle_cli.serve.background import in_background
from recycle_cli.serve.opening import Opening
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
    opening = Opening(ModelSettings(), settings, [Store.open(str(store)) for store in stores])
    digests = [hashlib.sha256(key.encode()).digest() for key in keys]
    headers = {"Authorization": f"Bearer {keys[0]}"} if keys else {}
    with (
        in_background(opening, [str(word) for word in words], digests) as found,
        httpx2.Client(base_url=found.url, headers=headers, timeout=60) as client,
    ):
        yield Server(found.url, client, found.application)
