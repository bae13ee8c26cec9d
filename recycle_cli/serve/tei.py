"""The endpoints of Text Embeddings Inference."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal

import orjson
import torch
from fastapi import APIRouter, Request, Response
from pydantic import Field

from recycle_cli import __version__
from recycle_cli.models.outputs import Outputs
from recycle_cli.serve.asking import (
    Asked,
    Ids,
    Inputs,
    asked_in,
    check_count,
    embedded,
    found_for,
    gone,
    listed,
    respond,
    salt_of,
    service_of,
    texts_in,
    usable,
)
from recycle_cli.serve.documented import documented
from recycle_cli.serve.refusals import Refusal, refusal_of
from recycle_cli.serve.service import ROWS, Served, Service

router = APIRouter()

MOST_TOKENS = 1 << 17
"""Tokens that `/tokenize` lists at most."""

MOST_ROWS_BYTES = 16 << 20
"""Bytes of rows that `/embed_all` sends at most, before they are JSON."""

PredictInput = str | Annotated[list[str], Field(min_length=1, max_length=2)]
Direction = Literal["Right", "right", "Left", "left"]


class EmbedAllRequest(Asked):
    """Texts whose rows are asked for."""

    inputs: Inputs
    truncate: bool | None = None
    truncation_direction: Direction = "Right"
    prompt_name: str | None = None


class EmbedRequest(EmbedAllRequest):
    """Texts to embed. `truncate` false refuses a text that is longer than the model takes."""

    normalize: bool = True
    dimensions: Annotated[int, Field(ge=1)] | None = None


class PredictParameters(Asked):
    """What huggingface_hub's client may ask for."""

    function_to_apply: Literal["softmax", "sigmoid", "none"] | None = None
    top_k: Annotated[int, Field(ge=1)] | None = None


class PredictRequest(Asked):
    """A text, a list of two texts (one pair), or a list of lists of one or two texts (a batch)."""

    inputs: str | list[PredictInput]
    raw_scores: bool = False
    truncate: bool | None = None
    truncation_direction: Direction = "Right"
    parameters: PredictParameters = PredictParameters()


class SimilarityInput(Asked):
    """A text and those that it is compared with."""

    source_sentence: str
    sentences: list[str]


class SimilarityParameters(Asked):
    """How texts are cut off."""

    truncate: bool | None = None
    truncation_direction: Direction = "Right"
    prompt_name: str | None = None


class SimilarityRequest(Asked):
    """A text and those that it is compared with."""

    inputs: SimilarityInput
    parameters: SimilarityParameters | None = None


class TokenizeRequest(Asked):
    """Texts to take apart."""

    inputs: str | list[str]
    add_special_tokens: bool = True
    prompt_name: str | None = None


class DecodeRequest(Asked):
    """Token ids to put together."""

    ids: Ids | list[Ids]
    skip_special_tokens: bool = True


@router.post("/embed", **documented(EmbedRequest, "plain"))
async def embed(request: Request) -> Response:
    """Embeddings, a list for each text; of length one unless `normalize` is false."""
    service, asked = service_of(request), asked_in(request, EmbedRequest)
    served, texts = await _texts(request, service, asked, lambda one: one.embeds, "gives embeddings")
    vectors, result = await embedded(
        request,
        served,
        texts,
        truncate=asked.truncate is not False,
        raw=not asked.normalize,
        dimensions=asked.dimensions,
        param="inputs",
    )
    return respond(request, await service.in_thread(lambda: _dumped(vectors)), result)


@router.post("/embed_all", **documented(EmbedAllRequest, "plain"))
async def embed_all(request: Request) -> Response:
    """The rows of each text at the cut of the RUN, or of the last block of a model without a store: a list a token."""
    service, asked = service_of(request), asked_in(request, EmbedAllRequest)
    served, texts = await _texts(request, service, asked, lambda one: one.has_rows, "gives rows")
    most = max(1, MOST_ROWS_BYTES // (4 * (service.longest(served) or 1) * served.run.head.split.row_shape[-1]))
    if len(texts) > most:
        raise Refusal("Validation", f"inputs holds {len(texts):,} texts, and the rows of {most:,} are sent at once")
    found, result = await found_for(
        request, served, texts, truncate=asked.truncate is not False, rows=True, param="inputs"
    )
    each = [one.outputs[served.name + ROWS].numpy() for one in found]
    return respond(request, await service.in_thread(lambda: _dumped(each)), result)


@router.post("/predict", **documented(PredictRequest, "plain"))
async def predict(request: Request) -> Response:
    """The score of each class, the largest first."""
    service, asked = service_of(request), asked_in(request, PredictRequest)
    served = _chosen(request, service, lambda one: one.classifies, "scores classes")
    _refuse_left(asked.truncation_direction)
    values: list[Any] = [asked.inputs] if isinstance(asked.inputs, str) else list(asked.inputs)
    batch = any(isinstance(one, list) for one in values)
    if not batch and len(values) == 2:
        values = [values]  # two texts side by side are one pair
    elif not batch and len(values) > 2:
        raise Refusal("Validation", "inputs: a batch is a list of lists, as [[text], [text]]")
    check_count(values, service, "inputs")
    plain = [one[0] if isinstance(one, list) and len(one) == 1 else one for one in values]
    read = await service.read(served, plain)
    examples = []
    for number, one in enumerate(read):
        if isinstance(one, Exception):
            raise refusal_of(one, f"inputs {number}: ")
        examples.append(one)
    samples = [example.sample for example in examples]
    result = await service.outputs(
        [served], samples, lambda: gone(request), truncate=asked.truncate is not False, salt=salt_of(request)
    )
    outputs = Outputs.of([one.outputs[served.name] for one in usable(result, "inputs")])
    answers = await service.answers(served, examples, outputs)
    scores = _scores(served, answers, outputs.values, asked)
    return respond(request, _dumped(scores if batch else scores[0]), result)


@router.post("/similarity", **documented(SimilarityRequest, "plain"))
async def similarity(request: Request) -> Response:
    """The cosine of a text and each of some others."""
    service, asked = service_of(request), asked_in(request, SimilarityRequest)
    served = _chosen(request, service, lambda one: one.embeds, "gives embeddings")
    how = asked.parameters or SimilarityParameters()
    _refuse_left(how.truncation_direction)
    _refuse_prompt(how.prompt_name)
    check_count(asked.inputs.sentences, service, "sentences")
    texts = [asked.inputs.source_sentence, *asked.inputs.sentences]
    vectors, result = await embedded(request, served, texts, truncate=how.truncate is not False, param="inputs")
    return respond(request, _dumped(vectors[1:] @ vectors[0]), result)


@router.post("/tokenize", **documented(TokenizeRequest, "plain"))
async def tokenize(request: Request) -> Response:
    """The tokens of each text, none cut off."""
    service, asked = service_of(request), asked_in(request, TokenizeRequest)
    served = _chosen(request, service, lambda one: not one.reading.of_images, "takes texts")
    _refuse_prompt(asked.prompt_name)
    values = listed(asked.inputs)
    check_count(values, service, "inputs")
    found = await service.in_thread(lambda: served.group.finding.pieces(values, asked.add_special_tokens, MOST_TOKENS))
    if found is None:
        raise Refusal("Validation", f"inputs have more than {MOST_TOKENS:,} tokens, which is the most that is listed")
    return respond(request, orjson.dumps([[asdict(piece) for piece in pieces] for pieces in found]))


@router.post("/decode", **documented(DecodeRequest, "plain"))
async def decode(request: Request) -> Response:
    """The text of each list of token ids."""
    service, asked = service_of(request), asked_in(request, DecodeRequest)
    served = _chosen(request, service, lambda one: not one.reading.of_images, "takes texts")
    lists = listed(asked.ids)
    check_count(lists, service, "ids")
    skip = asked.skip_special_tokens
    texts = await service.in_thread(lambda: served.group.finding.texts_of(lists, skip_special=skip))
    return respond(request, orjson.dumps(texts))


@router.get("/info", **documented(None, "plain"))
async def info(request: Request) -> Response:
    """What is asked by these endpoints, and the limits."""
    service = service_of(request)
    served = _chosen(request, service, lambda one: True, "is served")
    settings = service.settings
    about = {
        "model_id": served.name,
        "model_sha": None,
        "model_dtype": "float32",
        "model_type": _kind(served),
        "served_model_name": served.name,
        "max_concurrent_requests": settings.limits.max_requests,
        "max_input_length": service.longest(served) or 1,
        "max_batch_tokens": service.batch_tokens,
        "max_batch_requests": None,
        "max_client_batch_size": settings.limits.max_items,
        "auto_truncate": True,
        "tokenization_workers": 1,
        "version": __version__,
        "sha": None,
        "docker_label": None,
    }
    return respond(request, orjson.dumps(about))


def _kind(served: Served) -> dict[str, Any]:
    names = served.run.names
    if served.classifies:
        ids = {str(number): name for number, name in enumerate(names)}
        return {"classifier": {"id2label": ids, "label2id": {name: number for number, name in enumerate(names)}}}
    return {"embedding": {"pooling": getattr(served.run.head.split.model, "pooling", "mean")}}


def _chosen(request: Request, service: Service, fits: Callable[[Served], bool], what: str) -> Served:
    """The RUN that `?model=NAME` names, else the first that suits the endpoint. Raises Refusal."""
    name = request.query_params.get("model")
    for one in service.served.values() if name is None else [service.find(name)]:
        if fits(one):
            return one
    raise Refusal("Backend", f"{'no model here' if name is None else f'{name} is no model that'} {what}")


async def _texts(
    request: Request, service: Service, asked: EmbedAllRequest, fits: Callable[[Served], bool], what: str
) -> tuple[Served, list[str]]:
    """The RUN that is asked, and the texts. Raises Refusal."""
    served = _chosen(request, service, fits, what)
    _refuse_left(asked.truncation_direction)
    _refuse_prompt(asked.prompt_name)
    return served, await texts_in(asked.inputs, served, service, "inputs")


def _refuse_left(direction: str) -> None:
    if direction.lower() == "left":
        raise Refusal("Validation", "truncation_direction Left: texts are cut off on the right")


def _refuse_prompt(name: str | None) -> None:
    if name is not None:
        raise Refusal("Validation", "prompt_name: no prompts are known here; put it before the text")


def _scores(
    served: Served, answers: Sequence[dict[str, Any]], logits: torch.Tensor, asked: PredictRequest
) -> list[list[dict[str, Any]]]:
    """The score of each class, the largest first; the outputs themselves if they are asked for."""
    own = "softmax" if "label" in served.run.task.columns(()) else "sigmoid"
    wanted = asked.parameters.function_to_apply
    if wanted not in (None, own, "none"):
        raise Refusal("Validation", f"function_to_apply {wanted}: {served.name} was trained with {own}")
    raw = asked.raw_scores or wanted == "none"
    found = []
    for answer, values in zip(answers, logits.tolist(), strict=True):
        scores = values if raw else [answer[f"score_{name}"] for name in served.run.names]
        each = [{"score": score, "label": name} for score, name in zip(scores, served.run.names, strict=True)]
        found.append(sorted(each, key=lambda one: -one["score"])[: asked.parameters.top_k])
    return found


def _dumped(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
