"""Weights of torchvision's models: downloaded, from a file or random, and put into a model."""

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision import models as torchvision_models

from recycle_cli.disk import expanded
from recycle_cli.errors import ModelError, UsageError
from recycle_cli.models.hub import first_line
from recycle_cli.models.vision.transforms import ImageTransform, of_torchvision

NO_WEIGHTS = "none"
RANDOM_SEED = 0
RANDOM = f"random, seed {RANDOM_SEED}"
DEFAULT_WEIGHTS = "DEFAULT"


def preset_of(architecture: str) -> ImageTransform:
    """The transform that torchvision gives with the architecture's own weights."""
    return of_torchvision(torchvision_models.get_model_weights(architecture).DEFAULT.transforms())


def preset(name: str, weights: str) -> ImageTransform:
    """The transform of these weights; for a file or random weights that of the architecture."""
    known = torchvision_models.get_model_weights(name)
    return of_torchvision(known[weights].transforms()) if weights in known.__members__ else preset_of(name)


def built(name: str, classes: int, transform: ImageTransform, seed: int) -> nn.Module:
    """A random model; an architecture for one size of image is made for the transform's."""
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
                f"model {name!r} cannot be built for images of {height} x {width} ({first_line(error)}); change --crop"
            ) from error
    return model.eval()


def weights_of(name: str, weights: str, transform: ImageTransform) -> tuple[dict[str, Tensor], str]:
    """The tensors that `weights` names, and their origin in words.

    Raises ModelError if they cannot be had, UsageError for a name that is unknown.
    """
    known = torchvision_models.get_model_weights(name)
    if weights == NO_WEIGHTS:
        # With one size of task layer whatever the labels: its size decides which random numbers the trunk gets.
        return built(name, len(known.DEFAULT.meta["categories"]), transform, RANDOM_SEED).state_dict(), RANDOM
    if weights in known.__members__:
        return _downloaded(name, known[weights]), str(known[weights])
    path = Path(expanded(weights))
    if not path.is_file():
        names = ", ".join(known.__members__)
        raise UsageError(f"--weights {weights}: expected a file, {NO_WEIGHTS}, or one of {names}")
    return read_weights(path), f"file {path.name}"


def _downloaded(name: str, chosen: Any) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = chosen.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:
        raise ModelError(
            f"model {name!r}: its weights {chosen.name} cannot be downloaded ({first_line(error)}); connect to the "
            f"network, or give --weights with a file, or --weights {NO_WEIGHTS} for random ones"
        ) from error
    return tensors


def read_weights(path: Path) -> dict[str, Tensor]:
    """A state dict from safetensors, or from PyTorch's own format with nothing but tensors in it."""
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, ValueError, EOFError, UnpicklingError) as error:
        raise ModelError(
            f"weights {path} cannot be read ({first_line(error)}); expected .safetensors, or a state_dict saved alone"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ModelError(f"weights {path}: expected a state_dict, names to tensors")
    return {str(name).removeprefix("module."): value for name, value in found.items()}


def fill(model: nn.Module, found: Mapping[str, Tensor], name: str, *, fixed: bool) -> frozenset[str]:
    """Copy weights into the model; a task layer for another number of classes stays new. Returns the names left new.

    Raises ModelError for weights that do not fit; `fixed`: for a task layer of another size too.
    """
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
