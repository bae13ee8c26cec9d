"""The application: its endpoints behind the gate, and what becomes of failures."""

import time
from collections.abc import Callable, Sequence

import orjson
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from recycle_cli import __version__
from recycle_cli.errors import RecycleError
from recycle_cli.serve.asking import service_of
from recycle_cli.serve.documented import describe
from recycle_cli.serve.gate import Gate
from recycle_cli.serve.metrics import Metrics
from recycle_cli.serve.openai import router as openai
from recycle_cli.serve.refusals import Kind, Refusal, refusal_of
from recycle_cli.serve.runs import router as runs
from recycle_cli.serve.service import ClientGone
from recycle_cli.serve.tei import router as tei
from recycle_cli.settings import ServeSettings


class Application:
    """The endpoints behind their gate. `app.state.service` is what they serve, None until it is loaded; while it runs,
    `end` lets it finish what is in flight and stop, whichever thread calls it."""

    def __init__(
        self, settings: ServeSettings, metrics: Metrics, keys: Sequence[bytes] = (), hosts: frozenset[str] | None = None
    ) -> None:
        self.app = FastAPI(title="recycle serve", version=__version__, openapi_url="/openapi.json")
        self.app.state.service = None
        self.app.state.metrics = metrics
        self.app.state.began = int(time.time())
        for router in (openai, tei, runs):
            self.app.include_router(router)
        self.app.add_exception_handler(Refusal, _refused)
        self.app.add_exception_handler(RecycleError, _not_possible)
        self.app.add_exception_handler(HTTPException, _not_there)
        self.app.add_exception_handler(ClientGone, _nobody)
        self.app.add_exception_handler(Exception, _failed)
        self.app.add_api_route("/health", _health, include_in_schema=False)
        self.app.add_api_route("/ping", _health, include_in_schema=False)
        self.app.add_api_route("/metrics", _metrics, include_in_schema=False)
        describe(self.app)
        self.gate = Gate(self.app, settings.limits, metrics, keys, hosts, tenants=settings.tenants)
        self.end: Callable[[], object] = lambda: None


async def _health(request: Request) -> Response:
    """200 when requests are answered, else 503."""
    service = request.app.state.service
    return Response(status_code=200 if service is not None and service.healthy else 503)


async def _metrics(request: Request) -> Response:
    service_of(request)
    return Response(request.app.state.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return _answer(request, error)


async def _not_possible(request: Request, error: Exception) -> Response:
    assert isinstance(error, RecycleError)
    return _answer(request, refusal_of(error))


async def _not_there(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    kind: Kind = "Validation" if error.status_code == 405 else "NotFound"
    said = "not with this method" if error.status_code == 405 else "there is no such endpoint"
    return _answer(request, Refusal(kind, said, status=error.status_code, headers=dict(error.headers or {})))


async def _failed(request: Request, error: Exception) -> Response:
    return _answer(request, Refusal("Backend", "the server has failed; its log says why", status=500))


def _answer(request: Request, refusal: Refusal) -> Response:
    path = request.url.path
    body = orjson.dumps(refusal.body_at(path))
    return Response(body, refusal.status_at(path), dict(refusal.headers), media_type="application/json")


async def _nobody(request: Request, error: Exception) -> Response:
    return Response(status_code=499)
