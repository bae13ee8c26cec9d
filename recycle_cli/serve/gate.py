"""The gate before every endpoint: who may come in, how much at once, how large, and what is told of it."""

import asyncio
import hashlib
import hmac
import json
import re
import traceback
import uuid
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

import orjson

from recycle_cli.reports import is_quiet, say
from recycle_cli.serve.metrics import Metrics
from recycle_cli.serve.refusals import Refusal, overloaded
from recycle_cli.settings import LimitSettings

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = frozenset({"/health", "/ping"})
"""Endpoints without a key, which answer however busy the server is."""

BODY, TENANT = "recycle.body", "recycle.tenant"
"""Where an endpoint finds the body that was read, and what keeps the content of whoever asks apart."""

_HELD = 8
"""Bodies of the largest size that may be held at the same time."""

_NAMED = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Gate:
    """Lets requests through to `app`, one by one checked: the key, the number in flight, the body. Each has an id.

    keys  SHA-256 of the keys that are valid; none if everybody may ask
    hosts the names by which this machine may be asked; None for any
    tenants  whether each key's content is kept apart
    """

    def __init__(
        self,
        app: App,
        limits: LimitSettings,
        metrics: Metrics,
        keys: Sequence[bytes],
        hosts: frozenset[str] | None,
        *,
        tenants: bool,
    ) -> None:
        self._app, self._limits, self._metrics, self._keys, self._hosts = app, limits, metrics, tuple(keys), hosts
        self._tenants = tenants
        self.draining = False
        self._requests = self._bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            elif scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1000})
            return
        began, headers = perf_counter(), _headers(scope)
        asked_id = headers.get("x-request-id", "")
        identity = asked_id if _NAMED.fullmatch(asked_id) else uuid.uuid4().hex
        scope["recycle.id"] = identity
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", identity.encode())]
            await send(message)

        path = scope["path"]
        try:
            if path in OPEN:
                await self._app(scope, receive, sending)
            else:
                await self._checked(scope, headers, receive, sending)
        except Refusal as refusal:
            if not status:
                await refuse(refusal, path, sending)
        except Exception as error:  # noqa: BLE001 - one request's failure, already answered, is a line of the log
            say(f"request {identity} has failed: {''.join(traceback.format_exception(error)[-4:])}")
            if not status:
                await refuse(Refusal("Backend", "the server has failed; its log says why", status=500), path, sending)
        finally:
            seconds = perf_counter() - began
            endpoint = getattr(scope.get("route"), "path", "other")
            self._metrics.request(endpoint, status or 499, seconds)
            if not is_quiet() and path not in OPEN:
                say(_line(scope, identity, status or 499, seconds))

    async def _checked(self, scope: Scope, headers: dict[str, str], receive: Receive, send: Send) -> None:
        self._admit(scope, headers)
        if self._requests >= self._limits.max_requests:
            raise overloaded("too many requests are being answered; try again later")
        self._requests += 1
        self._metrics.in_flight.set(self._requests)
        held = 0

        def hold(size: int) -> None:
            nonlocal held
            if self._bytes + size > _HELD * self._limits.max_body:
                raise overloaded("the bodies of other requests fill the memory; try again later")
            self._bytes += size
            held += size

        try:
            scope[BODY] = body = await self._body(headers, receive, hold)
            given = False

            async def again() -> Message:
                nonlocal given
                if given:
                    return await receive()
                given = True
                return {"type": "http.request", "body": body, "more_body": False}

            await self._app(scope, again, send)
        finally:
            self._requests -= 1
            self._bytes -= held
            self._metrics.in_flight.set(self._requests)

    def _admit(self, scope: Scope, headers: dict[str, str]) -> None:
        """Raise Refusal for whoever may not ask, or not now."""
        if self._hosts is not None and _host(headers.get("host", "")) not in self._hosts:
            raise Refusal("Refused", "the header Host names another machine; ask at the address that is served")
        if self._keys:
            kind, _, given = headers.get("authorization", "").partition(" ")
            digest = hashlib.sha256(given.strip().encode("utf-8", "surrogateescape")).digest()
            valid = [hmac.compare_digest(digest, key) for key in self._keys]
            if kind.lower() != "bearer" or not any(valid):
                raise Refusal(
                    "Refused",
                    "a key is needed: send the header Authorization: Bearer KEY",
                    code="invalid_api_key",
                    status=401,
                    headers={"WWW-Authenticate": "Bearer"},
                )
            if self._tenants:
                scope[TENANT] = hashlib.sha256(b"recycle tenant " + digest).hexdigest()
        if self.draining:
            raise Refusal(
                "Unhealthy", "the server is about to end", headers={"Retry-After": "5", "Connection": "close"}
            )

    async def _body(self, headers: dict[str, str], receive: Receive, hold: Callable[[int], None]) -> bytes:
        """The whole body, each part of which `hold` counts. Raises Refusal for one that is too large or too slow."""
        most, close = self._limits.max_body, {"Connection": "close"}
        too_large = Refusal("TooLarge", f"the body is larger than {most:,} bytes (--max-body)", headers=close)
        declared = headers.get("content-length", "")
        if declared and (not declared.isdecimal() or len(declared) > 18 or int(declared) > most):
            raise too_large
        chunks, size = [], 0
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Refusal("Validation", "the client has gone", status=499)
                    chunk = message.get("body", b"")
                    size += len(chunk)
                    if size > most:
                        raise too_large
                    hold(len(chunk))
                    chunks.append(chunk)
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            seconds = f"{self._limits.body_seconds:g}"
            raise Refusal(
                "Validation", f"the body has not come in {seconds} seconds", status=408, headers=close
            ) from None
        return b"".join(chunks)


async def refuse(refusal: Refusal, path: str, send: Send) -> None:
    """Send a refusal as an answer."""
    body = orjson.dumps(refusal.body_at(path))
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(name.lower().encode(), value.encode()) for name, value in refusal.headers.items()]
    await send({"type": "http.response.start", "status": refusal.status_at(path), "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


def _host(header: str) -> str:
    """The name in a Host header, without its port."""
    if header.startswith("["):
        return header[: header.find("]") + 1]
    return header.partition(":")[0].lower()


def _line(scope: Scope, identity: str, status: int, seconds: float) -> str:
    """One request as a line of JSON."""
    about = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "request": identity,
        "method": scope["method"],
        "path": scope["path"][:200],
        "status": status,
        "ms": round(1000 * seconds, 2),
        **scope.get("recycle.about", {}),
    }
    return json.dumps(about)
