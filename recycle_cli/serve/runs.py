"""The endpoints of recycle itself: the predictions of RUNs, as `recycle predict` writes them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import Field
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from recycle_cli.corpus import Example
from recycle_cli.errors import RecycleError
from recycle_cli.keys import Sample
from recycle_cli.models.outputs import Outputs
from recycle_cli.runs import json_line
from recycle_cli.serve.asking import Asked, asked_in, check_count, gone, respond, salt_of, service_of
from recycle_cli.serve.documented import documented
from recycle_cli.serve.jobs import Found
from recycle_cli.serve.refusals import Refusal, refusal_of
from recycle_cli.serve.service import Result, Served, Service

router = APIRouter()

Pair = Annotated[list[str], Field(min_length=2, max_length=2)]

Fields = dict[str, str | int | float | list[str] | None]
"""An input as an object: its fields by their names."""


class RunRequest(Asked):
    """Inputs for a RUN: texts, lists of two texts, or objects with its fields (`text`, `text_pair`; `question`,
    `context`; `tokens`; `image`, as base64 or a data URI). `truncate` false refuses a text that is longer than the
    model takes."""

    inputs: str | Fields | list[str | Pair | Fields]
    truncate: bool = True


class RunsRequest(RunRequest):
    """Inputs for several RUNs; without `runs` for all that are served."""

    runs: list[str] | None = None


@router.post("/runs/{name}", **documented(RunRequest, "plain", form=True))
async def predict(name: str, request: Request) -> Response:
    """The predictions of one RUN, an object an input; an input that cannot be used has an `error` in its place."""
    service = service_of(request)
    served = service.find(name)
    asked = await _asked(request, RunRequest)
    values = _values(asked, service)
    (found,), result = await _predicted(request, [served], values, truncate=asked.truncate)
    if len(found.errors) == len(found.lines):
        raise refusal_of(found.errors[0], "input 0: ")
    body = f'{{"run": {json_line(name)}, "answers": [{", ".join(found.lines)}]{_told(found)}}}'
    return respond(request, body.encode(), result)


@router.post("/runs", **documented(RunsRequest, "plain", form=True))
async def predict_all(request: Request) -> Response:
    """The predictions of several RUNs for the same inputs; RUNs of one recipe share a pass of the trunk."""
    service = service_of(request)
    asked = await _asked(request, RunsRequest)
    served = [service.find(name) for name in dict.fromkeys(asked.runs or service.served)]
    values = _values(asked, service)
    found, result = await _predicted(request, served, values, truncate=asked.truncate)
    each = (
        f'{json_line(run.name)}: {{"answers": [{", ".join(own.lines)}]{_told(own)}}}'
        for run, own in zip(served, found, strict=True)
    )
    return respond(request, f'{{"runs": {{{", ".join(each)}}}}}'.encode(), result)


@dataclass(frozen=True)
class Predicted:
    """A RUN's lines of JSON, one an input; `cut_off` says whose text was too long, `errors` why some are not used."""

    lines: list[str]
    cut_off: list[int]
    errors: dict[int, RecycleError]


async def _predicted(
    request: Request, served: Sequence[Served], values: Sequence[Any], *, truncate: bool
) -> tuple[list[Predicted], Result]:
    """The predictions of each RUN. RUNs of one group that take the same samples share one pass."""
    service = service_of(request)
    read = {one.name: await service.read(one, values) for one in served}
    samples = {one.name: _samples(read[one.name]) for one in served}
    done: dict[str, Result] = {}
    for one in served:
        if one.name in done:
            continue
        contents = [sample.fields for sample in samples[one.name]]
        alike = [
            other
            for other in served
            if other.group is one.group and [sample.fields for sample in samples[other.name]] == contents
        ]
        result = await service.outputs(
            alike, samples[one.name], lambda: gone(request), truncate=truncate, salt=salt_of(request)
        )
        done |= {other.name: result for other in alike}
    found = [await _of_run(service, one, read[one.name], done[one.name]) for one in served]
    results = {id(result): result for result in done.values()}.values()
    return found, Result([one for result in results for one in result.found], sum(one.hits for one in results))


def _samples(read: Sequence[Example | RecycleError]) -> list[Sample]:
    return [sample for one in read if isinstance(one, Example) for sample in one.samples]


async def _of_run(
    service: Service, served: Served, read: Sequence[Example | RecycleError], result: Result
) -> Predicted:
    """The lines of one RUN, from what its samples gave."""
    left = iter(result.found)
    examples: list[Example] = []
    outputs: list[Any] = []
    errors: dict[int, RecycleError] = {}
    cut_off: list[int] = []
    for number, one in enumerate(read):
        if isinstance(one, RecycleError):
            errors[number] = one
            continue
        own = [next(left) for _ in one.samples]
        wrong = [each for each in own if isinstance(each, RecycleError)]
        if wrong:
            errors[number] = wrong[0]
            continue
        there = [each for each in own if isinstance(each, Found)]
        if any(each.cut_off for each in there):
            cut_off.append(number)
        examples.append(one)
        outputs += [each.outputs[served.name] for each in there]
    answers = iter(await service.answers(served, examples, Outputs.of(outputs)) if examples else [])
    ids = iter(examples)
    lines = [
        json_line(_error(number, errors[number]))
        if number in errors
        else json_line({"id": next(ids).id, **next(answers)})
        for number in range(len(read))
    ]
    return Predicted(lines, cut_off, errors)


def _error(number: int, error: RecycleError) -> dict[str, Any]:
    return {"id": str(number), "error": refusal_of(error).message}


def _told(found: Predicted) -> str:
    """The inputs that were cut off, if there are some, as a part of the JSON."""
    return f', "truncated": {found.cut_off}' if found.cut_off else ""


def _values(asked: RunRequest, service: Service) -> list[Any]:
    values = asked.inputs if isinstance(asked.inputs, list) else [asked.inputs]
    check_count(values, service, "inputs")
    return values


async def _asked(request: Request, kind: type[Any]) -> Any:
    """The JSON of a request, or the files of a form as inputs: each file named `image` is one."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        return asked_in(request, kind)
    most = service_of(request).settings.limits.max_items
    try:
        async with request.form(max_files=most, max_fields=8) as form:
            files = [one for one in form.getlist("image") if isinstance(one, UploadFile)]
            contents = [await one.read() for one in files]
    except HTTPException as error:
        message = f"the form cannot be read ({error.detail}); send files named image"
        raise Refusal("Validation", message, status=400) from None
    return kind.model_construct(inputs=[{"image": content} for content in contents], truncate=True, runs=None)
