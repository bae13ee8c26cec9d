"""An image model by name, cut and ready to be used: which library has it, which transform it gets."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from recycle_cli.errors import UsageError
from recycle_cli.models.layers import Layer, bytes_per_sample
from recycle_cli.models.split_model import SplitModel
from recycle_cli.models.task_layer import OWN, TaskLayer
from recycle_cli.models.vision.cutter import Cutter
from recycle_cli.models.vision.graph import GraphCutter
from recycle_cli.models.vision.modules import ModuleCutter
from recycle_cli.models.vision.points import WHOLE, resolve_point
from recycle_cli.models.vision.pretrained import load_pretrained, processor_transform
from recycle_cli.models.vision.sources import (
    DEFAULT_WEIGHTS,
    LoadedImages,
    is_run,
    is_torchvision,
    load_torchvision,
    preset,
)
from recycle_cli.models.vision.split import split_images
from recycle_cli.models.vision.transforms import ImageTransform, changed, from_json
from recycle_cli.settings import ImageSettings, ModelSettings


@dataclass(frozen=True)
class ImageNetwork:
    """A loaded image model with its cuts."""

    loaded: LoadedImages
    cutter: Cutter
    head_batchnorm: str

    def split(self, cuts: Sequence[str], dtype: str) -> SplitModel:
        """The model in two halves at each cut."""
        return split_images(self.loaded, self.cutter, cuts, dtype=dtype, head_batchnorm=self.head_batchnorm)

    def resolve(self, cut: str) -> str:
        """A cut's canonical name."""
        point = resolve_point(cut, self.cutter.points, self.cutter.others)
        return WHOLE if point is None else point.name

    def layers(self, dtype: str) -> list[Layer]:
        """Every cut in the order of computation; bytes of one image, which is one row."""
        return [
            Layer(
                cut=point.name,
                share=point.flops,
                flops_share=point.flops,
                parameter_share=point.parameters,
                row_shape=point.shape,
                bytes_per_sample=bytes_per_sample(point.shape, 1, dtype),
            )
            for point in self.cutter.points
        ]

    @property
    def provenance(self) -> dict[str, str]:
        """What a store keeps, so that the model is found again and gets its images in the same way."""
        return {"weights": self.loaded.weights, "transform": json.dumps(asdict(self.loaded.transform))}


def load_images(model: ModelSettings, layer: TaskLayer = OWN, *, seed: int = 0) -> ImageNetwork:
    """Load an image model and find its cuts. Raises ModelError, UsageError."""
    name, images = model.name, model.images
    if not is_torchvision(name):
        return _pretrained(model, layer, seed)
    weights = images.weights
    run = is_run(name)
    if run and weights is not None:
        raise UsageError(f"--weights {weights}: {name} is a run, which has its own weights; leave the option out")
    transform = _transform(name, images, run=run)
    loaded = load_torchvision(
        name, labels=layer.labels, head=layer.head, weights=weights, transform=transform, seed=seed
    )
    return ImageNetwork(loaded, GraphCutter(loaded.model, (3, *loaded.transform.size)), images.head_batchnorm)


def _pretrained(model: ModelSettings, layer: TaskLayer, seed: int) -> ImageNetwork:
    if model.images.weights is not None:
        raise UsageError(
            f"--weights {model.images.weights}: {model.name!r} is a whole checkpoint; leave the option out"
        )
    loaded = load_pretrained(
        model.name,
        labels=layer.labels,
        problem=layer.problem,
        head=layer.head,
        transform=_processor_transform(model),
        revision=model.revision,
        trust_remote_code=model.trust_remote_code,
        seed=seed,
    )
    return ImageNetwork(loaded, ModuleCutter(loaded.model, (3, *loaded.transform.size)), model.images.head_batchnorm)


def _processor_transform(model: ModelSettings) -> ImageTransform:
    images = model.images
    kept = (
        from_json(json.loads(images.transform)) if images.transform else processor_transform(model.name, model.revision)
    )
    return changed(kept, images.resize, images.crop, images.mean, images.std)


def _transform(name: str, images: ImageSettings, *, run: bool) -> ImageTransform | None:
    """The weights' own with what the user changes in it; None where there is nothing to change."""
    given: dict[str, Any] = {"resize": images.resize, "crop": images.crop, "mean": images.mean, "std": images.std}
    if images.transform:
        return changed(from_json(json.loads(images.transform)), **given)
    if not any(given.values()):
        return None
    if run:
        raise UsageError(f"--resize, --crop, --mean, --std: {name} is a run, which has its own; leave them out")
    return changed(preset(name, images.weights or DEFAULT_WEIGHTS), **given)
