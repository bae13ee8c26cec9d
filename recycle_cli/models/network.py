"""A model of any kind as the verbs use it: loaded by name, split at cuts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from recycle_cli.errors import UsageError
from recycle_cli.models.cuts import resolve_cut
from recycle_cli.models.layers import Layer, layers
from recycle_cli.models.split_model import SplitModel
from recycle_cli.models.task_layer import OWN, TaskLayer
from recycle_cli.models.text.embedder import load_embedder
from recycle_cli.models.text.load import Loaded, load
from recycle_cli.models.text.split import split
from recycle_cli.models.text.tokens import default_max_length
from recycle_cli.models.vision.loading import load_images
from recycle_cli.models.vision.pretrained import is_image_model
from recycle_cli.models.vision.sources import NO_WEIGHTS, LoadedImages, is_run, is_torchvision
from recycle_cli.recipe import Recipe
from recycle_cli.settings import ImageSettings, ModelSettings

AnyLoaded = Loaded | LoadedImages
"""A loaded model of either kind: both have `name`, `model`, `labels`, `missing` and `save`."""


@dataclass(frozen=True)
class Network:
    """A loaded model, text or image.

    split       (cuts, stored dtype) -> its halves. Raises UsageError for a cut that it does not have
    resolve     (cut, its halves) -> the cut's canonical name
    provenance  what finds the model again, for a store to keep
    """

    loaded: AnyLoaded
    split: Callable[[Sequence[str], str], SplitModel]
    resolve: Callable[[str, SplitModel], str]
    provenance: Mapping[str, str] = field(default_factory=dict)


def takes_images(model: ModelSettings) -> bool:
    """Whether the model takes images, and not texts."""
    return is_torchvision(model.name) or is_image_model(model.name, model.revision)


def refuse_foreign(model: ModelSettings, name: str, *, images: bool) -> None:
    """Raise UsageError for an option of the other kind of model: it would have no effect, and be taken for done.

    `name`: the model or store that says which kind it is.
    """
    if images and model.max_length is not None:
        raise UsageError(f"--max-length {model.max_length}: {name} takes images, not texts; leave the option out")
    if not images and model.images != ImageSettings():
        given = [
            f"--{field.name.replace('_', '-')}"
            for field in fields(ImageSettings)
            if getattr(model.images, field.name) != field.default
        ]
        raise UsageError(f"{', '.join(given)}: {name} takes texts, not images; leave the options of images out")


def open_network(model: ModelSettings, layer: TaskLayer = OWN, *, seed: int = 0) -> Network:
    """Load a model that ends with `layer`, which is made from `seed` where the checkpoint does not have it.

    Raises ModelError where it cannot be found or loaded, UsageError for settings that do not fit it.
    """
    images = takes_images(model)
    refuse_foreign(model, model.name, images=images)
    if images:
        return _images(model, layer, seed)
    loaded = _text(model, layer, seed)
    max_length = model.max_length or default_max_length(loaded)
    return Network(
        loaded,
        split=lambda cuts, dtype: split(loaded, cuts, max_length=max_length, dtype=dtype),
        resolve=lambda cut, halves: resolve_cut(cut, halves.blocks),
    )


def layers_of(model: ModelSettings, dtype: str) -> tuple[list[Layer], int | None]:
    """Every cut of a model in the order of computation, and the tokens of the sample that its bytes are of.

    That is `max_length` (None: the longest), and None for an image, which is one row. Of an image model no weights are
    needed, and none fetched. Raises as `open_network`.
    """
    images = takes_images(model)
    if not images and model.images.resize:
        raise UsageError(f"--image-size {model.images.resize[0]}: {model.name} takes texts; leave the option out")
    refuse_foreign(model, model.name, images=images)
    if images:
        bare = is_torchvision(model.name) and not is_run(model.name)
        random = replace(model, images=replace(model.images, weights=NO_WEIGHTS)) if bare else model
        return load_images(random).layers(dtype), None
    loaded = load(model.name, labels=None, revision=model.revision, trust_remote_code=model.trust_remote_code)
    length = model.max_length or default_max_length(loaded)
    return layers(loaded, length=length, dtype=dtype), length


def found_again(model: ModelSettings, provenance: Mapping[str, str], recipe: Recipe, *, named: bool) -> ModelSettings:
    """The settings by which a store's model is loaded as the store had it; what the user gave (`named`) comes first."""
    if not named:
        model = replace(model, name=provenance["model"], revision=provenance.get("revision"))
    if recipe.modality == "text":
        return model if model.max_length else replace(model, max_length=recipe.max_length)
    weights = model.images.weights
    if weights is None and model.name == provenance["model"]:
        weights = provenance.get("given_weights")
    return replace(model, images=replace(model.images, weights=weights, transform=provenance.get("transform")))


def _text(model: ModelSettings, layer: TaskLayer, seed: int) -> Loaded:
    options: dict[str, Any] = {
        "revision": model.revision,
        "trust_remote_code": model.trust_remote_code,
        "seed": seed,
    }
    if layer.embeds:
        return load_embedder(model.name, layer.head, **options)
    return load(model.name, labels=layer.labels, problem=layer.problem, **options)


def _images(model: ModelSettings, layer: TaskLayer, seed: int) -> Network:
    network = load_images(model, layer, seed=seed)
    weights = _absolute(model.images.weights)
    return Network(
        network.loaded,
        split=network.split,
        resolve=lambda cut, halves: network.resolve(cut),
        provenance=network.provenance | ({} if weights is None else {"given_weights": weights}),
    )


def _absolute(weights: str | None) -> str | None:
    return str(Path(weights).resolve()) if weights and Path(weights).is_file() else weights
