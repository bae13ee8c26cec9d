"""Where image models come from: torchvision by name, with its weights, a file's or none; a RUN; transformers."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision import models as torchvision_models

from recycle_cli.errors import ModelError, UsageError
from recycle_cli.models.embedding import merge_embedding, numbered, parameters_below, put_embedding
from recycle_cli.models.vision.transforms import ImageTransform, from_json, of_torchvision
from recycle_cli.settings import EmbeddingSettings

NO_WEIGHTS = "none"
RANDOM_SEED = 0
RANDOM = f"random, seed {RANDOM_SEED}"
DEFAULT_WEIGHTS = "DEFAULT"
ABOUT = "torchvision.json"
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class LoadedImages:
    """An image model in eval, and how images become its input.

    architecture  what builds it, as plain data: part of the recipe
    weights       where its weights are from, in words
    loads_with    the call that loads the checkpoint without us
    write         folder -> None: write such a checkpoint
    missing       parameters that the weights do not have: a new task layer
    """

    name: str
    model: Any
    transform: ImageTransform
    labels: tuple[str, ...]
    architecture: Mapping[str, Any]
    weights: str
    library: str
    loads_with: str
    write: Callable[[Path], None]
    missing: frozenset[str] = frozenset()

    def save(self, folder: Path, max_length: int | None) -> None:
        """Write the model as its library loads it, and what gives it its images."""
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


def preset_of(architecture: str) -> ImageTransform:
    """The transform that torchvision gives with the architecture's own weights."""
    return of_torchvision(torchvision_models.get_model_weights(architecture).DEFAULT.transforms())


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
    .pth, read without running code), `none` (random, the same each time); None: `DEFAULT`, or a RUN's own. `seed` is of
    the task layer where the weights have another. `transform` None: the weights' own. Raises ModelError where weights
    cannot be had or do not fit, UsageError for unknown ones.
    """
    if is_run(name):
        return _from_run(Path(name), labels, head, transform, seed)
    if name not in architectures():
        raise ModelError(f"model {name!r}: no architecture of torchvision; expected one such as resnet50 or vit_b_16")
    transform = transform or preset(name, weights or DEFAULT_WEIGHTS)
    found, source = _weights(name, weights or DEFAULT_WEIGHTS, transform)
    classes = tuple(labels) if labels is not None else _own_labels(name, found, transform)
    model = _built(name, len(classes), transform, seed)
    missing = _fill(model, found, name, fixed=labels is None)
    return _loaded(name, name, model, transform, classes, source, missing, head, seed)


def _write(folder: Path, *, model: nn.Module, about: Mapping[str, Any]) -> None:
    """The state dict, which the torchvision class loads with strict=True, and how to build it."""
    merge_embedding(model)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    (folder / ABOUT).write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _from_run(
    folder: Path,
    labels: Sequence[str] | None,
    head: EmbeddingSettings | None,
    transform: ImageTransform | None,
    seed: int,
) -> LoadedImages:
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        architecture, known = about["architecture"], tuple(about["labels"])
        transform = transform or from_json(about["transform"])
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder / ABOUT} cannot be read ({error}); train the run again") from error
    model = _built(architecture, len(labels if labels is not None else known), transform, seed)
    missing = _fill(model, _from_file(folder / WEIGHTS), str(folder), fixed=labels is None)
    classes = tuple(labels) if labels is not None else known
    return _loaded(str(folder), architecture, model, transform, classes, str(folder), missing, head, seed)


def _loaded(
    name: str,
    architecture: str,
    model: nn.Module,
    transform: ImageTransform,
    labels: tuple[str, ...],
    weights: str,
    missing: frozenset[str],
    head: EmbeddingSettings | None,
    seed: int,
) -> LoadedImages:
    if head is not None:
        place, size = put_embedding(model, head, len(labels), seed)
        labels, missing = numbered(size), parameters_below(model, place)
    about = {"architecture": architecture, "labels": list(labels), "transform": asdict(transform), "weights": weights}
    return LoadedImages(
        name,
        model,
        transform,
        labels,
        {"library": "torchvision", "name": architecture},
        weights,
        library="torchvision",
        loads_with=f"torchvision.models.{architecture}(num_classes={len(labels)}).load_state_dict",
        write=partial(_write, model=model, about=about),
        missing=missing,
    )


def _built(name: str, classes: int, transform: ImageTransform, seed: int) -> nn.Module:
    """A random model; those that are made for one size of image are made for the transform's."""
    options: dict[str, Any] = {"num_classes": classes}
    height, width = transform.size
    if name.startswith("vit_"):
        if height != width:
            raise UsageError(f"model {name!r} takes square images, not {height} x {width}; change --crop")
        options["image_size"] = height
    elif name == "maxvit_t":
        options["input_size"] = (height, width)
    elif name in ("googlenet", "inception_v3"):
        options["init_weights"] = True
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model: nn.Module = torchvision_models.get_model(name, weights=None, **options)
        except ValueError as error:
            raise ModelError(
                f"model {name!r} cannot be built for images of {height} x {width} ({_first_line(error)}); change --crop"
            ) from error
    return model.eval()


def preset(name: str, weights: str) -> ImageTransform:
    """The transform of these weights; of files and random weights the architecture's."""
    known = torchvision_models.get_model_weights(name)
    return of_torchvision(known[weights].transforms()) if weights in known.__members__ else preset_of(name)


def _weights(name: str, weights: str, transform: ImageTransform) -> tuple[dict[str, Tensor], str]:
    """The tensors, and where they are from."""
    known = torchvision_models.get_model_weights(name)
    if weights == NO_WEIGHTS:
        # Of one size of task layer whatever the labels: its size decides what random numbers the trunk gets.
        return _built(name, len(known.DEFAULT.meta["categories"]), transform, RANDOM_SEED).state_dict(), RANDOM
    if weights in known.__members__:
        return _downloaded(name, known[weights]), str(known[weights])
    path = Path(weights).expanduser()
    if not path.is_file():
        names = ", ".join(known.__members__)
        raise UsageError(f"--weights {weights}: expected a file, {NO_WEIGHTS}, or one of {names}")
    return _from_file(path), f"file {path.name}"


def _downloaded(name: str, chosen: Any) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = chosen.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:
        raise ModelError(
            f"model {name!r}: its weights {chosen.name} cannot be downloaded ({_first_line(error)}); connect to the "
            f"network, or give --weights with a file, or --weights {NO_WEIGHTS} for random ones"
        ) from error
    return tensors


def _from_file(path: Path) -> dict[str, Tensor]:
    """A state dict from safetensors, or from PyTorch's own format with nothing but tensors in it."""
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, ValueError, EOFError, _unpickling()) as error:
        raise ModelError(
            f"weights {path} cannot be read ({_first_line(error)}); expected .safetensors, or a state_dict saved alone"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ModelError(f"weights {path}: expected a state_dict, names to tensors")
    return {str(name).removeprefix("module."): value for name, value in found.items()}


def _unpickling() -> type[Exception]:
    from pickle import UnpicklingError

    return UnpicklingError


def _own_labels(name: str, found: Mapping[str, Tensor], transform: ImageTransform) -> tuple[str, ...]:
    """Class names of the weights, as far as they are known: ImageNet's, or numbers for a file's."""
    categories = tuple(torchvision_models.get_model_weights(name).DEFAULT.meta["categories"])
    with torch.device("meta") if not name.startswith("regnet") else nullcontext():
        last = list(_built(name, len(categories), transform, 0).state_dict())[-1]
    classes = len(found[last]) if last in found else 0
    return categories if classes == len(categories) else tuple(str(number) for number in range(max(2, classes)))


def _fill(model: nn.Module, found: Mapping[str, Tensor], name: str, *, fixed: bool) -> frozenset[str]:
    """Copy weights into the model; a task layer of another number of classes stays new. Returns what was left new."""
    mine = model.state_dict()
    ignored = [key for key in found if key not in mine]
    other = {key for key, tensor in mine.items() if key in found and found[key].shape != tensor.shape}
    absent = {key for key in mine if key not in found and not key.endswith("num_batches_tracked")}
    wrong = {key for key in other if fixed or found[key].shape[1:] != mine[key].shape[1:]}
    if absent or wrong or ignored:
        key = sorted(absent or wrong or ignored)[0]
        why = "is not there" if absent else "has another shape" if wrong else "is not the model's"
        raise ModelError(f"model {name!r}: the weights do not fit: {key} {why}; expected the architecture's state_dict")
    with torch.no_grad():
        # Not by load_state_dict: MNASNet's asks for a version number that only PyTorch's own files carry.
        for key in mine.keys() & found.keys() - other:
            mine[key].copy_(found[key])
    return frozenset(other)


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
