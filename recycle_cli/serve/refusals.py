"""Answers that say no: what went wrong, in the shape that the client of each endpoint knows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from recycle_cli.errors import DataError, ModelError, RecycleError, UsageError
from recycle_cli.serve.queue import OverloadedError

Kind = Literal["Empty", "Validation", "Backend", "Overloaded", "Unhealthy", "TooLarge", "NotFound", "Refused"]

STATUS: Mapping[Kind, int] = {
    "Empty": 400,
    "Validation": 422,
    "TooLarge": 413,
    "Backend": 424,
    "Overloaded": 429,
    "Unhealthy": 503,
    "NotFound": 404,
    "Refused": 403,
}
"""The codes of Text Embeddings Inference, which the endpoints of recycle have too."""

OPENAI_STATUS: Mapping[Kind, int] = {"Empty": 400, "Validation": 400, "Backend": 500}
"""The codes that OpenAI's endpoints have in place of these."""

OPENAI = "/v1/"


@dataclass
class Refusal(Exception):  # noqa: N818 - it is an answer
    """An answer that says no.

    param  the field of the request that is wrong, if it is one
    code   a word for programs
    status another code than the kind's
    """

    kind: Kind
    message: str
    param: str | None = None
    code: str | None = None
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def status_at(self, path: str) -> int:
        """The HTTP status at an endpoint."""
        own = OPENAI_STATUS if path.startswith(OPENAI) else STATUS
        return self.status or own.get(self.kind, STATUS[self.kind])

    def body_at(self, path: str) -> dict[str, Any]:
        """The JSON of the answer at an endpoint."""
        if not path.startswith(OPENAI):
            return {"error": self.message, "error_type": self.kind}
        server = self.status_at(path) >= 500
        kind = {"Overloaded": "rate_limit_error"}.get(self.kind, "server_error" if server else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def refusal_of(error: RecycleError, where: str = "") -> Refusal:
    """The answer for a failure. What is no fault of the request is not told: its message may name paths."""
    if isinstance(error, OverloadedError):
        return Refusal("Overloaded", str(error), headers={"Retry-After": str(error.seconds)})
    if isinstance(error, DataError | UsageError) and not isinstance(error, ModelError):
        return Refusal("Validation", f"{where}{error}", param="input")
    return Refusal("Backend", f"{where}the server could not compute it; its log says why")


def overloaded(message: str, seconds: int = 1) -> Refusal:
    """429, with the seconds after which it is worth trying again."""
    return Refusal("Overloaded", message, code="rate_limit_exceeded", headers={"Retry-After": str(seconds)})
