"""What the OpenAPI document says of an endpoint, whose body is read by the endpoint itself."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from recycle_cli import __version__


class OpenAIDetail(BaseModel):
    """What went wrong: a message, its kind, the field that is wrong, and a word for programs."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(BaseModel):
    """An error in OpenAI's shape."""

    error: OpenAIDetail


class PlainError(BaseModel):
    """An error in the shape of Text Embeddings Inference."""

    error: str
    error_type: str


_bodies: list[type[BaseModel]] = [OpenAIError, PlainError]

_STATUS = {
    400: "The request is empty or no JSON",
    401: "No valid key",
    403: "Asked by another name than this machine's",
    404: "Not served here",
    408: "The body came too slowly",
    413: "The body is too large",
    415: "The body is not said to be JSON",
    422: "An input or a field cannot be used",
    424: "The model that was asked gives no such answer, or could not compute it",
    429: "Too much is in flight; see Retry-After",
    500: "The server's own fault",
    503: "Loading, or about to end",
}

_REF = "#/components/schemas/{model}"


def documented(body: type[BaseModel] | None, shape: str, *, form: bool = False) -> dict[str, Any]:
    """Arguments of a route: the schema of its body, the codes that it answers with, and the shape of its errors."""
    error = OpenAIError if shape == "openai" else PlainError
    codes = set(_STATUS) - ({422, 424} if shape == "openai" else {500})
    if body is None:
        codes -= {415}
    responses = {
        str(code): {
            "description": _STATUS[code],
            "content": {"application/json": {"schema": {"$ref": _REF.format(model=error.__name__)}}},
        }
        for code in sorted(codes)
    }
    more: dict[str, Any] = {"responses": responses}
    if body is not None:
        _bodies.append(body)
        content: dict[str, Any] = {"application/json": {"schema": {"$ref": _REF.format(model=body.__name__)}}}
        if form:
            file = {"type": "string", "format": "binary"}
            schema = {"type": "object", "properties": {"image": {"type": "array", "items": file}}}
            content["multipart/form-data"] = {"schema": schema}
        more["requestBody"] = {"required": True, "content": content}
    return {"openapi_extra": more}


def describe(app: FastAPI) -> None:
    """Give the app its OpenAPI document, with the schemas of all bodies."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = get_openapi(title="recycle serve", version=__version__, routes=app.routes)
            _, schemas = models_json_schema([(one, "validation") for one in _bodies], ref_template=_REF)
            found.setdefault("components", {}).setdefault("schemas", {}).update(schemas["$defs"])
            for path in found["paths"].values():
                for operation in path.values():
                    _without_defaults(operation)
            served = app.state.service
            if served is None:
                return found
            found["components"]["schemas"]["EmbeddingRequest"]["properties"]["model"]["examples"] = list(served.served)
            app.openapi_schema = found
        return app.openapi_schema

    app.openapi = openapi


def _without_defaults(operation: dict[str, Any]) -> None:
    """FastAPI documents its own shape of a 422, which is never sent."""
    own = operation["responses"].get("422", {}).get("content", {}).get("application/json", {}).get("schema", {})
    if own.get("$ref", "").endswith("HTTPValidationError"):
        del operation["responses"]["422"]
