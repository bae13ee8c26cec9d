"""A model of any kind as the verbs use it: loaded by name, split at cuts, saved again."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from recycle_cli.models.cuts import resolve_cut
from recycle_cli.models.sources import Loaded, load, quiet
from recycle_cli.models.split_model import SplitModel
from recycle_cli.models.text import split
from recycle_cli.models.tokens import default_max_length
from recycle_cli.models.vision.loading import load_images
from recycle_cli.models.vision.sources import is_torchvision
from recycle_cli.recipe import Recipe
from recycle_cli.settings import ModelSettings


@dataclass(frozen=True)
class Network:
    """A loaded model, text or image.

    labels      the classes of its task layer
    split       (cuts, stored dtype) -> its halves. Raises UsageError for a cut that it does not have
    resolve     (cut, its halves) -> the cut's canonical name
    save        folder -> None: write model and tokenizer or transform, as a checkpoint of its library
    loads_with  the call that loads that checkpoint again
    provenance  what finds the model again, for a store to keep
    """

    labels: tuple[str, ...]
    split: Callable[[Sequence[str], str], SplitModel]
    resolve: Callable[[str, SplitModel], str]
    save: Callable[[Path], None]
    library: str
    loads_with: str
    provenance: Mapping[str, str] = field(default_factory=dict)


def takes_images(name: str) -> bool:
    """Whether the name is an image model's."""
    return is_torchvision(name)


def open_network(model: ModelSettings, *, labels: Sequence[str] | None, seed: int = 0) -> Network:
    """Load a model with a task layer for `labels`, made from `seed` where it has none; None keeps its own.

    Raises ModelError where it cannot be found or loaded, UsageError for settings that do not fit it.
    """
    if takes_images(model.name):
        return _images(model, labels, seed)
    loaded = load(
        model.name, labels=labels, revision=model.revision, trust_remote_code=model.trust_remote_code, seed=seed
    )
    max_length = model.max_length or default_max_length(loaded)
    config = loaded.model.config
    return Network(
        labels=tuple(config.id2label[index] for index in range(config.num_labels)),
        split=lambda cuts, dtype: split(loaded, cuts, max_length=max_length, dtype=dtype),
        resolve=lambda cut, halves: resolve_cut(cut, halves.blocks),
        save=partial(_save_text, loaded, max_length),
        library="transformers",
        loads_with="AutoModelForSequenceClassification.from_pretrained",
    )


def found_again(model: ModelSettings, provenance: Mapping[str, str], recipe: Recipe, *, named: bool) -> ModelSettings:
    """The settings by which a store's model is loaded as the store had it; what the user gave (`named`) comes first."""
    if not named:
        model = replace(model, name=provenance["model"], revision=provenance.get("revision"))
    if recipe.modality == "text":
        return model if model.max_length is not None else replace(model, max_length=recipe.max_length)
    images = model.images
    if not named and images.weights is None:
        images = replace(images, weights=provenance.get("given_weights"))
    return replace(model, images=replace(images, transform=provenance.get("transform")))


def _images(model: ModelSettings, labels: Sequence[str] | None, seed: int) -> Network:
    network = load_images(model.name, model.images, labels=labels, seed=seed)
    given: dict[str, Any] = {"given_weights": _absolute(model.images.weights)}
    return Network(
        labels=network.loaded.labels,
        split=network.split,
        resolve=lambda cut, halves: network.resolve(cut),
        save=network.save,
        library="torchvision",
        loads_with=f"torchvision.models.{network.loaded.architecture['name']}(num_classes=...).load_state_dict",
        provenance=network.provenance | {name: value for name, value in given.items() if value is not None},
    )


def _absolute(weights: str | None) -> str | None:
    return str(Path(weights).resolve()) if weights and Path(weights).is_file() else weights


def _save_text(loaded: Loaded, max_length: int, folder: Path) -> None:
    with quiet():
        loaded.tokenizer.model_max_length = max_length  # so that a pipeline's truncation is ours
        loaded.model.save_pretrained(folder)
        loaded.tokenizer.save_pretrained(folder)
