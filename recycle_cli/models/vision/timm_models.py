"""Models of timm, which transformers wraps: their config says neither the kind of model nor where its labels are."""

import importlib.util
from collections.abc import Mapping
from math import floor
from typing import Any

import transformers

from recycle_cli.errors import ModelError, UsageError
from recycle_cli.models.hub import Source, quiet
from recycle_cli.models.vision.processors import same_pixels
from recycle_cli.models.vision.transforms import ImageTransform

TYPE = "timm_wrapper"

_NO_PART = ("label_names", "num_classes", "pretrained_cfg")
"""Fields of a timm config that name its labels, its weights and their images."""


def is_timm(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is a timm model's: timm's own, which has an `architecture` and no `model_type`, or that of
    transformers."""
    return config.get("model_type", TYPE if "architecture" in config else None) == TYPE


def computing(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config without the fields that decide nothing about what a timm model computes."""
    return {name: value for name, value in config.items() if not (is_timm(config) and name in _NO_PART)}


def require_timm(name: str) -> None:
    """Raise ModelError if timm is not installed."""
    if importlib.util.find_spec("timm") is None:
        raise ModelError(f"model {name!r} is one of timm; install it with `pip install 'recycle-cli[timm]'`")


def labels_of_timm(source: Source) -> dict[str, str]:
    """Names of the classes of a timm checkpoint by their number; ImageNet's if it has as many and names none."""
    with quiet():
        config = transformers.AutoConfig.from_pretrained(source.name, **source.options)
    return {str(number): str(label) for number, label in config.id2label.items()}


def options_of_timm(config: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a timm config as transformers takes them: newer versions of timm write the number of labels twice."""
    arguments = dict(config.get("model_args") or {})
    return {"model_args": arguments} if is_timm(config) and arguments.pop("num_classes", None) is not None else {}


def keep_transform(config: Any, transform: ImageTransform) -> None:
    """Write a transform into a timm model's config, which is where its image processor is read from.

    Raises UsageError for one that timm has no words for.
    """
    wanted = dict(getattr(config, "pretrained_cfg", None) or {}) | _facts(transform)
    if not same_pixels(transform, transformers.TimmWrapperImageProcessor(pretrained_cfg=wanted)):
        raise UsageError(
            "--resize, --crop, --mean, --std: the config of a timm model does not hold such a transform; resize the "
            "shorter side and crop a square, or give --resize HEIGHT,WIDTH alone"
        )
    config.pretrained_cfg = wanted


def _facts(transform: ImageTransform) -> dict[str, Any]:
    size = transform.size
    resized = transform.resize or size
    return {
        "input_size": [3, *size],
        "mean": list(transform.mean),
        "std": list(transform.std),
        "interpolation": transform.interpolation,
        "crop_mode": "center" if len(resized) == 1 else "squash",
        "crop_pct": _share(size[0], resized[0]),
    }


def _share(crop: int, resized: int) -> float:
    """The share by which timm divides the crop, and rounds down, to get the size before it."""
    share = crop / resized
    return share if floor(crop / share) == resized else crop / (resized + 0.5)
