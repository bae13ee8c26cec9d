"""What every endpoint does with a request: its JSON checked, its texts as samples, its answer as JSON."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

import numpy as np
import orjson
from fastapi import Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from recycle_cli.corpus.records import BadRecord
from recycle_cli.corpus.texts import text_of
from recycle_cli.errors import DataError, RecycleError
from recycle_cli.keys import Sample
from recycle_cli.models.outputs import Outputs
from recycle_cli.serve.gate import BODY, TENANT
from recycle_cli.serve.jobs import Found
from recycle_cli.serve.refusals import Refusal, refusal_of
from recycle_cli.serve.service import Result, Served, Service

M = TypeVar("M", bound=BaseModel)

Ids = list[Annotated[int, Field(ge=0, lt=2**31)]]

Inputs = str | list[str] | Ids | list[Ids]
"""A text or several, or the token ids of one or of several."""


class Asked(BaseModel):
    """The JSON of a request: no field that is not named, no value of another type."""

    model_config = ConfigDict(extra="forbid", strict=True)


def service_of(request: Request) -> Service:
    """What is served. Raises Refusal until it is loaded."""
    service: Service | None = request.app.state.service
    if service is None:
        raise Refusal("Unhealthy", "the models are being loaded; try again later", headers={"Retry-After": "1"})
    return service


def asked_in(request: Request, kind: type[M]) -> M:
    """The JSON of a request. Raises Refusal."""
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json":
        raise Refusal("Validation", "expected a body with the header Content-Type: application/json", status=415)
    try:
        given = orjson.loads(request.scope[BODY])
    except orjson.JSONDecodeError as error:
        raise Refusal("Validation", f"the body is not JSON: {error.msg} at character {error.pos}", status=400) from None
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        raise _wrong(error) from None


def _wrong(error: ValidationError) -> Refusal:
    """The first thing that is wrong with the fields of a request."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = [str(one)[:60] for one in first["loc"]]
    where = ".".join(place[:1] + [one for one in place[1:] if one.isdigit()])
    return Refusal("Validation", f"{where or 'the body'}: {first['msg']}", place[0] if place else None)


def salt_of(request: Request) -> str | None:
    """What keeps the content of whoever asks apart; None if all share it."""
    salt: str | None = request.scope.get(TENANT)
    return salt


async def gone(request: Request) -> None:
    """Wait until the client hangs up. The body was read before, so that nothing else comes."""
    while (await request.receive())["type"] != "http.disconnect":
        await asyncio.sleep(0)


def listed(inputs: Inputs) -> list[Any]:
    """The inputs as a list; one list of token ids is one input."""
    if isinstance(inputs, str) or (inputs and isinstance(inputs[0], int)):
        return [inputs]
    return list(inputs)


def check_count(values: Sequence[Any], service: Service, param: str = "input") -> None:
    """Raise Refusal for no inputs, and for too many."""
    most = service.settings.limits.max_items
    if not values:
        raise Refusal("Empty", f"{param} is empty, expected at least one input", param)
    if len(values) > most:
        raise Refusal("Validation", f"{param} holds {len(values):,} inputs, and at most {most:,} are taken", param)


def samples_of(served: Served, values: Sequence[str], param: str = "input") -> list[Sample]:
    """A sample an input, a text or an image. Raises Refusal, naming the first that cannot be used."""
    found: list[Sample] = []
    for number, value in enumerate(values):
        try:
            if served.reading.of_images:
                found += served.reading.example(value, number).samples
            else:
                found.append(Sample(str(number), {"text": text_of({"text": value}, "text")}))
        except BadRecord:
            raise Refusal("Empty", f"{param} {number} is an empty text", param) from None
        except RecycleError as error:
            raise refusal_of(error, f"{param} {number}: ") from None
    return found


async def embedded(
    request: Request,
    served: Served,
    values: Sequence[str],
    *,
    truncate: bool,
    raw: bool = False,
    dimensions: int | None = None,
    param: str = "input",
) -> tuple[np.ndarray, Result]:
    """Embeddings (n, E) float32 of texts or images, each of length one unless they are asked for `raw`.

    Raises Refusal, also if E is not the `dimensions` that are asked for.
    """
    service = service_of(request)
    if not served.embeds:
        fitting = [one.name for one in service.served.values() if one.embeds]
        remedy = f"ask {fitting[0]}" if fitting else "serve a RUN of --task similarity, or a model itself"
        raise Refusal("NotFound", f"{served.name} gives no embeddings; {remedy}", "model", "model_not_found")
    found, result = await found_for(request, served, values, truncate=truncate, param=param)

    def stacked() -> np.ndarray:
        outputs = Outputs.of([one.outputs[served.name] for one in found])
        return (outputs.values if raw else served.run.task.vectors(outputs)).numpy()

    vectors = await service.in_thread(stacked)
    if dimensions not in (None, vectors.shape[1]):
        message = f"dimensions {dimensions}: {served.name} has {vectors.shape[1]}"
        raise Refusal("Validation", message, "dimensions")
    return vectors, result


async def found_for(
    request: Request,
    served: Served,
    values: Sequence[str],
    *,
    truncate: bool,
    rows: bool = False,
    param: str = "input",
) -> tuple[list[Found], Result]:
    """What a RUN gives for texts or images, or its rows. Raises Refusal if one of them cannot be used."""
    service = service_of(request)
    samples = await service.in_thread(lambda: samples_of(served, values, param))
    result = await service.outputs(
        [served], samples, lambda: gone(request), truncate=truncate, rows=rows, salt=salt_of(request)
    )
    return usable(result, param), result


async def texts_in(inputs: Inputs, served: Served, service: Service, param: str = "input") -> list[str]:
    """The texts of a request; token ids are decoded if the server was told whose they are. Raises Refusal for none, for
    too many, and for ids that cannot be decoded."""
    values = listed(inputs)
    check_count(values, service, param)
    if isinstance(values[0], str):
        return values
    if not service.settings.accept_token_ids or served.reading.of_images:
        raise Refusal(
            "Validation",
            f"{param} holds token ids, and of which tokenizer is not known; send texts (with LangChain's "
            "OpenAIEmbeddings set check_embedding_ctx_length=False)",
            param,
        )
    try:
        return await service.in_thread(lambda: served.group.finding.texts_of(values))
    except DataError as error:
        raise refusal_of(error, f"{param}: ") from None


def usable(result: Result, param: str = "input") -> list[Found]:
    """What was found, if every sample could be used. Raises Refusal, naming the first that cannot."""
    found = []
    for number, one in enumerate(result.found):
        if isinstance(one, RecycleError):
            raise refusal_of(one, f"{param} {number}: ")
        found.append(one)
    return found


def respond(request: Request, body: bytes, result: Result | None = None) -> Response:
    """The answer, with what is told of it beside the body."""
    headers = {}
    if result is not None:
        request.scope["recycle.about"] = {"items": len(result.found), "hits": result.hits, "tokens": result.tokens}
        if result.cut_off:
            headers["x-recycle-truncated"] = ",".join(map(str, result.cut_off[:100]))
        if service_of(request).settings.debug_headers:
            headers["x-recycle-hits"] = f"{result.hits}/{len(result.found)}"
    return Response(body, media_type="application/json", headers=headers)
