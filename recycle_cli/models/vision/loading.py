"""Open an image model by name: from which library, with which weights and transform, and with its cuts."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from recycle_cli.errors import ModelError, UsageError
from recycle_cli.models.hub import Source, read_json
from recycle_cli.models.ladder.layout import channels
from recycle_cli.models.layers import Layer, bytes_per_sample, pooled_bytes
from recycle_cli.models.network import Network
from recycle_cli.models.pooling import USUAL_POOLINGS
from recycle_cli.models.split_model import SplitModel
from recycle_cli.models.task_layer import OWN, TaskLayer
from recycle_cli.models.vision.cutter import Cutter
from recycle_cli.models.vision.graph import GraphCutter
from recycle_cli.models.vision.modules import ModuleCutter
from recycle_cli.models.vision.points import WHOLE
from recycle_cli.models.vision.pretrained import (
    CONFIG,
    is_image_model,
    load_pretrained,
    with_architecture_proved,
)
from recycle_cli.models.vision.processors import processor_transform, transform_from
from recycle_cli.models.vision.sources import LoadedImages, is_run, is_torchvision, load_torchvision
from recycle_cli.models.vision.split import split_images
from recycle_cli.models.vision.timm_models import is_timm
from recycle_cli.models.vision.transforms import ImageTransform, Transform, changed, from_json
from recycle_cli.models.vision.weights import DEFAULT_WEIGHTS, NO_WEIGHTS, preset
from recycle_cli.settings import ImageSettings


@dataclass(frozen=True)
class ImageNetwork:
    """A loaded image model with its cuts."""

    loaded: LoadedImages
    cutter: Cutter
    head_batchnorm: str

    def split(self, cuts: Sequence[str], dtype: str, *, state_0: bool = False) -> SplitModel:
        """The model in two halves at each cut; `state_0`: 0 is the state before the first block."""
        loaded = with_architecture_proved(self.loaded) if self.loaded.library == "transformers" else self.loaded
        batchnorm = self.head_batchnorm
        return split_images(loaded, self.cutter, cuts, dtype=dtype, head_batchnorm=batchnorm, state_0=state_0)

    def resolve(self, cut: str) -> str:
        """A cut's canonical name."""
        point = self.cutter.resolve(cut)
        return WHOLE if point is None else point.name

    def layers(self, dtype: str) -> list[Layer]:
        """Every cut in the order of computation; bytes of one image, which is one row."""
        first, points = self.cutter.state_0, list(self.cutter.points)
        return [
            Layer(
                cut=point.name,
                share=point.flops,
                flops_share=point.flops,
                parameter_share=self.cutter.parameter_share(point.name),
                row_shape=point.shape,
                bytes_per_sample=bytes_per_sample(point.shape, 1, dtype),
                pooled_bytes=pooled_bytes(channels(point.shape), USUAL_POOLINGS["image"], dtype),
            )
            for point in ([first] if first is not None and first not in points else []) + points
        ]

    @property
    def provenance(self) -> dict[str, str]:
        """The fields that a store keeps, so that the model is found again and gets its images in the same way."""
        return {"weights": self.loaded.weights, "transform": json.dumps(self.loaded.transform.facts)}


def load_images(source: Source, images: ImageSettings, layer: TaskLayer = OWN, *, seed: int = 0) -> ImageNetwork:
    """Load an image model and find its cuts. Raises ModelError, UsageError."""
    if is_torchvision(source.name):
        loaded = _torchvision(source.name, images, layer, seed)
        cutter: Cutter = GraphCutter(loaded.model, (3, *loaded.transform.size))
    else:
        loaded = _pretrained(source, images, layer, seed)
        cutter = ModuleCutter(loaded.model, (3, *loaded.transform.size))
    return ImageNetwork(loaded, cutter, images.head_batchnorm)


def open_images(source: Source, images: ImageSettings, layer: TaskLayer = OWN, seed: int = 0) -> Network:
    """Load an image model that can be split. Raises ModelError, UsageError."""
    network = load_images(source, images, layer, seed=seed)
    weights = _absolute(images.weights)
    return Network(
        network.loaded,
        split=network.split,
        resolve=lambda cut, halves: network.resolve(cut),
        at_states=partial(network.split, state_0=True),
        provenance=network.provenance | ({} if weights is None else {"given_weights": weights}),
    )


def layers_of_images(source: Source, images: ImageSettings, dtype: str) -> list[Layer]:
    """Every cut of an image model. Torchvision's weights say nothing about its cuts, and are not fetched."""
    bare = is_torchvision(source.name) and not is_run(source.name)
    return load_images(source, replace(images, weights=NO_WEIGHTS) if bare else images).layers(dtype)


def is_images(name: str, revision: str | None = None) -> bool:
    """Whether a model of this name takes images."""
    return is_torchvision(name) or is_image_model(name, revision)


def found_again(images: ImageSettings, provenance: Mapping[str, str], *, same: bool) -> ImageSettings:
    """The settings with the store's transform, and its weights if the user gave none for the `same` model."""
    weights = provenance.get("given_weights") if images.weights is None and same else images.weights
    return replace(images, weights=weights, transform=provenance.get("transform"))


def _torchvision(name: str, images: ImageSettings, layer: TaskLayer, seed: int) -> LoadedImages:
    weights, run = images.weights, is_run(name)
    if run and weights is not None:
        raise UsageError(f"--weights {weights}: {name} is a run, which has its own weights; leave the option out")
    transform = _transform(name, images, run=run)
    return load_torchvision(name, labels=layer.labels, head=layer.head, weights=weights, transform=transform, seed=seed)


def _pretrained(source: Source, images: ImageSettings, layer: TaskLayer, seed: int) -> LoadedImages:
    if images.weights is not None:
        raise UsageError(f"--weights {images.weights}: {source.name!r} is a whole checkpoint; leave the option out")
    return load_pretrained(source, layer, transform=_of_pretrained(source, images), seed=seed)


def _of_pretrained(source: Source, images: ImageSettings) -> Transform:
    """The store's or the image processor's transform with the user's changes, which may also take its place."""
    given = (images.resize, images.crop, images.mean, images.std)
    whole = bool((images.resize or images.crop) and images.mean and images.std)
    try:
        kept = transform_from(json.loads(images.transform), source) if images.transform else processor_transform(source)
    except ModelError:
        if not whole:
            raise
        kept = None
    if not any(given) and kept is not None:
        return kept
    if not isinstance(kept, ImageTransform):
        if not whole:
            raise UsageError(
                f"--resize, --crop, --mean, --std: {source.name} has its images made by its own image processor, of "
                "which no single setting can be changed; leave them out, or give the size, --mean and --std together"
            )
        # Every field of it is replaced.
        kept = ImageTransform((), (1, 1), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    made = changed(kept, *given)
    return made if is_timm(read_json(source.name, CONFIG, source.revision)) else made.as_transformers


def _transform(name: str, images: ImageSettings, *, run: bool) -> ImageTransform | None:
    """The weights' own transform with the user's changes; None if there is nothing to change."""
    given: dict[str, Any] = {"resize": images.resize, "crop": images.crop, "mean": images.mean, "std": images.std}
    if images.transform:
        return changed(from_json(json.loads(images.transform)), **given)
    if not any(given.values()):
        return None
    if run:
        raise UsageError(f"--resize, --crop, --mean, --std: {name} is a run, which has its own; leave them out")
    return changed(preset(name, images.weights or DEFAULT_WEIGHTS), **given)


def _absolute(weights: str | None) -> str | None:
    return str(Path(weights).resolve()) if weights and Path(weights).is_file() else weights
