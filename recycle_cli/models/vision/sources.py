"""Torchvision's image models by name, with its own weights, a file's or none, and the RUNs made of them."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models as torchvision_models

from recycle_cli.errors import ModelError
from recycle_cli.models.embedding import merge_embedding, numbered, parameters_below, put_embedding
from recycle_cli.models.same_labels import fit_rows, with_a_row_a_class
from recycle_cli.models.vision.transforms import ImageTransform, Transform, from_json
from recycle_cli.models.vision.weights import DEFAULT_WEIGHTS, RANDOM, built, fill, preset, read_weights, weights_of
from recycle_cli.settings import EmbeddingSettings

ABOUT = "torchvision.json"
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class LoadedImages:
    """An image model in eval, and how images become its input.

    architecture  the library and the fields that build it, as plain data: part of the recipe
    weights       the origin of its weights, in words
    loads_with    the call that loads the checkpoint without us
    write         folder -> None: write such a checkpoint
    missing       parameters that the weights do not have: a new task layer
    """

    name: str
    model: Any
    transform: Transform
    labels: tuple[str, ...]
    architecture: Mapping[str, Any]
    weights: str
    library: str
    loads_with: str
    write: Callable[[Path], None]
    missing: frozenset[str] = frozenset()

    def save(self, folder: Path, max_length: int | None) -> None:
        """Write the model as its library loads it, with the transform of its images."""
        self.write(folder)


def architectures() -> list[str]:
    """Names of torchvision's classification models."""
    return list(torchvision_models.list_models(module=torchvision_models))


def is_torchvision(name: str) -> bool:
    """Whether the name is an architecture of torchvision, or a folder that holds one of ours."""
    return name in architectures() or is_run(name)


def is_run(name: str) -> bool:
    """Whether the name is a folder that holds a torchvision model of ours."""
    return (Path(name) / ABOUT).is_file()


def load_torchvision(
    name: str,
    *,
    labels: Sequence[str] | None,
    head: EmbeddingSettings | None = None,
    weights: str | None = None,
    transform: ImageTransform | None = None,
    seed: int = 0,
) -> LoadedImages:
    """Load a torchvision model with a task layer for `labels`; None keeps that of the weights.

    `head`: a new layer for an embedding in place of the classifier, whose outputs are then the numbers of the vector.
    `weights`: a name of torchvision's (`IMAGENET1K_V2`; downloaded), a file (.safetensors, or a state_dict as .pt or
    .pth, read without running code), `none` (random, the same each time); None: `DEFAULT`, or a RUN's own. `seed` makes
    the task layer if the weights have another. `transform` None: the weights' own. Raises ModelError if weights cannot
    be had or do not fit, UsageError for unknown ones.
    """
    if is_run(name):
        name = str(Path(name))
        made = _from_run(Path(name), transform)
    else:
        made = _from_name(name, weights or DEFAULT_WEIGHTS, transform)
    classes = tuple(labels) if labels is not None else made.labels()
    model = built(made.architecture, len(classes), made.transform, seed)
    first = {key: one.clone() for key, one in model.state_dict().items()} if labels is not None else {}
    missing = fill(model, made.tensors, name, fixed=labels is None)
    if labels is not None and head is None and not missing:
        missing = _named_rows(name, made, model, classes, first, seed)
    if head is not None:
        place, size = put_embedding(model, head, len(classes), seed)
        classes, missing = numbered(size), parameters_below(model, place)
    return _loaded(name, made, model, classes, missing)


def _named_rows(
    name: str, made: "_Weights", model: nn.Module, labels: tuple[str, ...], first: Mapping[str, Tensor], seed: int
) -> frozenset[str]:
    """Keep the classifier's rows by the names of its classes. Returns the parameters that are new."""
    known = made.labels()
    if known == labels or made.source == RANDOM:
        return frozenset()
    more = built(made.architecture, len(labels) + 1, made.transform, seed).state_dict()
    classifier = with_a_row_a_class(model.state_dict(), more)

    def renew() -> None:
        with torch.no_grad():
            for key, (tensor, _) in classifier.items():
                tensor.copy_(first[key])

    return fit_rows(name, known, labels, classifier, renew)


@dataclass(frozen=True)
class _Weights:
    """Weights as they were found, and the model they are for. `labels`: () -> the names of its classes."""

    architecture: str
    tensors: Mapping[str, Tensor]
    source: str
    transform: ImageTransform
    labels: Callable[[], tuple[str, ...]]


def _from_name(name: str, weights: str, transform: ImageTransform | None) -> _Weights:
    if name not in architectures():
        raise ModelError(f"model {name!r}: no architecture of torchvision; expected one such as resnet50 or vit_b_16")
    transform = transform or preset(name, weights)
    tensors, source = weights_of(name, weights, transform)
    return _Weights(name, tensors, source, transform, partial(_own_labels, name, tensors, transform))


def _from_run(folder: Path, transform: ImageTransform | None) -> _Weights:
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        architecture, known = about["architecture"], tuple(about["labels"])
        transform = transform or from_json(about["transform"])
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder / ABOUT} cannot be read ({error}); train the run again") from error
    return _Weights(architecture, read_weights(folder / WEIGHTS), str(folder), transform, lambda: known)


def _loaded(
    name: str, made: _Weights, model: nn.Module, labels: tuple[str, ...], missing: frozenset[str]
) -> LoadedImages:
    about = {
        "architecture": made.architecture,
        "labels": list(labels),
        "transform": made.transform.facts,
        "weights": made.source,
    }
    return LoadedImages(
        name,
        model,
        made.transform,
        labels,
        {"library": "torchvision", "name": made.architecture},
        made.source,
        library="torchvision",
        loads_with=f"torchvision.models.{made.architecture}(num_classes={len(labels)}).load_state_dict",
        write=partial(_write, model=model, about=about),
        missing=missing,
    )


def _write(folder: Path, *, model: nn.Module, about: Mapping[str, Any]) -> None:
    """Write the state dict, which the torchvision class loads with strict=True, and the facts to build the model."""
    merge_embedding(model)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    (folder / ABOUT).write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _own_labels(name: str, found: Mapping[str, Tensor], transform: ImageTransform) -> tuple[str, ...]:
    """Class names of the weights: ImageNet's if there are as many classes, else numbers."""
    categories = tuple(torchvision_models.get_model_weights(name).DEFAULT.meta["categories"])
    with torch.device("meta") if not name.startswith("regnet") else nullcontext():
        last = list(built(name, len(categories), transform, 0).state_dict())[-1]
    classes = len(found[last]) if last in found else 0
    return categories if classes == len(categories) else tuple(str(number) for number in range(max(2, classes)))
