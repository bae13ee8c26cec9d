"""Bench `recycle serve` with all samples in the store, beside the same server without one, asked by several clients."""

import base64
import http.client
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from recycle_cli.bench.layout import predict_cuts, prefix
from recycle_cli.bench.predict import FEW, run_at, scored_part
from recycle_cli.bench.subject import Subject
from recycle_cli.bench.timing import WARM_UP, Run, Runner, Unavailable
from recycle_cli.errors import RecycleError, UsageError
from recycle_cli.settings import ServeSettings
from recycle_cli.store import Store

CLIENTS = 8
"""Connections that ask at the same time."""

AT_ONCE = 4
"""Samples a request."""

PACKAGES = ("fastapi", "uvicorn", "orjson", "prometheus_client")


def runners(subject: Subject) -> dict[str, Runner | Unavailable]:
    """Runners of the server without a store, and of hits at each cut, 100% included."""
    if subject.settings.samples.task is not None:
        raise UsageError(f"--task {subject.settings.samples.task}: bench serve asks about records as they are")
    cuts = subject.settings.cuts
    groups = {cut: prefix("serve", cut, cuts) for cut in predict_cuts(cuts)}
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        lacking = Unavailable(f"needs {', '.join(missing)}: pip install 'recycle-cli[serve]'")
        return {"serve.no_store": lacking, **{f"{group}.hits": lacking for group in groups.values()}}
    bodies = _bodies(subject)
    found: dict[str, Runner | Unavailable] = {}
    for cut, group in groups.items():
        run = run_at(subject, subject.resolve(cut))
        if cut == cuts[0]:
            found["serve.no_store"] = partial(_asked, subject, _Asking(run, None, bodies))
        found[f"{group}.hits"] = partial(_asked, subject, _Asking(run, subject.store.path, bodies))
    return found


@dataclass(frozen=True)
class _Asking:
    """A RUN, the store that it is served with, and the bodies of the requests."""

    run: str
    store: str | None
    bodies: list[bytes]


def _asked(subject: Subject, asking: _Asking, repetition: int) -> Run:
    """Serve, and ask all requests once by several clients. Loading does not count."""
    from recycle_cli.serve.background import in_background
    from recycle_cli.serve.opening import Opening

    settings = ServeSettings(batch_tokens=subject.batch_tokens, parity_check=False, memory=1)
    stores = [] if asking.store is None else [Store.open(asking.store)]
    bodies = asking.bodies[: FEW // AT_ONCE] if repetition == WARM_UP else asking.bodies
    with ExitStack() as stack:
        server = stack.enter_context(in_background(Opening(subject.model, settings, stores), [f"run={asking.run}"]))
        pool = stack.enter_context(ThreadPoolExecutor(CLIENTS))
        began = perf_counter()
        each = pool.map(partial(_client, server.url), [bodies[number::CLIENTS] for number in range(CLIENTS)])
        times = np.array([one for own in each for one in own])
        seconds = perf_counter() - began
    figures = {f"p{percent}_seconds": float(np.percentile(times, percent)) for percent in (50, 99)}
    return Run(seconds, len(bodies) * AT_ONCE, figures=figures)


def _client(url: str, bodies: list[bytes]) -> list[float]:
    """The seconds of each request of one client, who sends the next when the last is answered."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=300)
    found = []
    for body in bodies:
        began = perf_counter()
        connection.request("POST", "/runs/run", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise RecycleError(f"the server answered {answer.status}: {content[:200].decode('utf-8', 'replace')}")
        found.append(perf_counter() - began)
    connection.close()
    return found


def _bodies(subject: Subject) -> list[bytes]:
    """The requests for a part of the records, each with some of them; what is left over is not asked."""
    inputs: list[dict[str, Any]] = []
    for example in subject.records(scored_part(subject)[0]):
        fields = example.sample.fields
        inputs.append({name: one if isinstance(one, str) else _packed(one) for name, one in fields.items()})
    whole = range(0, len(inputs) - AT_ONCE + 1, AT_ONCE)
    return [json.dumps({"inputs": inputs[start : start + AT_ONCE]}).encode() for start in whole]


def _packed(content: bytes) -> str:
    return base64.b64encode(content).decode()
