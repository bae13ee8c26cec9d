"""OpenAI's endpoints for embeddings."""

import base64
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import Field

from recycle_cli.serve.asking import Asked, Inputs, asked_in, embedded, respond, service_of, texts_in
from recycle_cli.serve.documented import documented

router = APIRouter()


class EmbeddingRequest(Asked):
    """Texts to embed. `truncate` false refuses a text that is longer than the model takes."""

    model: str
    input: Inputs
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1)] | None = None
    user: str | None = None
    truncate: bool = True


@router.post("/v1/embeddings", **documented(EmbeddingRequest, "openai"))
async def embeddings(request: Request) -> Response:
    """Embeddings of length one. `truncated` lists the inputs that were cut off, if some were."""
    service = service_of(request)
    asked = asked_in(request, EmbeddingRequest)
    served = service.find(asked.model)
    texts = await texts_in(asked.input, served, service)
    vectors, result = await embedded(request, served, texts, truncate=asked.truncate, dimensions=asked.dimensions)

    def answer() -> bytes:
        in_base64 = asked.encoding_format == "base64"
        each: Any = (
            (base64.b64encode(one.astype("<f4").tobytes()).decode() for one in vectors) if in_base64 else vectors
        )
        data = [{"object": "embedding", "index": place, "embedding": one} for place, one in enumerate(each)]
        usage = {"prompt_tokens": result.tokens, "total_tokens": result.tokens}
        told = {"truncated": result.cut_off} if result.cut_off else {}
        body = {"object": "list", "data": data, "model": served.name, "usage": usage, **told}
        return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)

    return respond(request, await service.in_thread(answer), result)


@router.get("/v1/models", **documented(None, "openai"))
async def models(request: Request) -> Response:
    """The RUNs that are served."""
    service = service_of(request)
    data = [_model(name, request) for name in service.served]
    return respond(request, orjson.dumps({"object": "list", "data": data}))


@router.get("/v1/models/{name:path}", **documented(None, "openai"))
async def model(name: str, request: Request) -> Response:
    """One RUN."""
    return respond(request, orjson.dumps(_model(service_of(request).find(name).name, request)))


def _model(name: str, request: Request) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": request.app.state.began, "owned_by": "recycle"}
