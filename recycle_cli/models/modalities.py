"""The kinds of input that a model may take, in one table."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from recycle_cli.models.hub import Source
from recycle_cli.models.layers import Layer
from recycle_cli.models.network import Network
from recycle_cli.models.preprocessor import Preprocessor
from recycle_cli.models.task_layer import TaskLayer
from recycle_cli.models.text.opening import layers_of_text, open_text, preprocessor_of_text
from recycle_cli.models.vision.loading import found_again as images_found_again
from recycle_cli.models.vision.loading import is_images, layers_of_images, open_images
from recycle_cli.recipe import Recipe
from recycle_cli.settings import ModelSettings
from recycle_cli.settings.option import changed_options

TEXT, IMAGE = "text", "image"


@dataclass(frozen=True)
class Modality:
    """A kind of input.

    name         as the preprocessor and the recipe have it
    noun         the word for its samples in a message: `texts`
    recognises   (name, revision) -> whether the model of this name takes it
    open         (source, settings, layer, seed) -> the loaded model. Raises ModelError, UsageError
    layers       (source, settings, stored dtype) -> every cut, and the rows of the sample that its bytes are of; None
                 if a sample is one row
    own_options  settings -> the options given that are of use to this modality alone, as the user typed them
    remedy       the advice to somebody who gave them for a model of another modality
    preprocessor (source, settings) -> how samples become inputs, known without the weights; None opens the whole model
    found_again  (settings, provenance, recipe of a store) -> the settings by which the store's model is loaded
    """

    name: str
    noun: str
    recognises: Callable[[str, str | None], bool]
    open: Callable[[Source, ModelSettings, TaskLayer, int], Network]
    layers: Callable[[Source, ModelSettings, str], tuple[list[Layer], int | None]]
    own_options: Callable[[ModelSettings], list[str]] = lambda model: []
    remedy: str = "leave the option out"
    preprocessor: Callable[[Source, ModelSettings], Preprocessor] | None = None
    found_again: Callable[[ModelSettings, Mapping[str, str], Recipe], ModelSettings] = lambda model, *_: model


def _text_options(max_length: int | None) -> list[str]:
    return [] if max_length is None else [f"--max-length {max_length}"]


# An opener takes the parts of the settings that it needs; here they are taken apart.
MODALITIES: dict[str, Modality] = {
    TEXT: Modality(
        TEXT,
        "texts",
        recognises=lambda name, revision: True,
        open=lambda source, model, layer, seed: open_text(source, model.max_length, layer, seed),
        layers=lambda source, model, dtype: layers_of_text(source, model.max_length, dtype),
        own_options=lambda model: _text_options(model.max_length),
        preprocessor=lambda source, model: preprocessor_of_text(source, model.max_length),
        found_again=lambda model, provenance, recipe: replace(model, max_length=model.max_length or recipe.max_length),
    ),
    IMAGE: Modality(
        IMAGE,
        "images",
        recognises=is_images,
        open=lambda source, model, layer, seed: open_images(source, model.images, layer, seed),
        layers=lambda source, model, dtype: (layers_of_images(source, model.images, dtype), None),
        own_options=lambda model: changed_options(model.images),
        remedy="leave the options of images out",
        found_again=lambda model, provenance, recipe: replace(
            model, images=images_found_again(model.images, provenance, same=model.name == provenance["model"])
        ),
    ),
}
"""By name. The last that recognises a model has it: text, the first, has every model that no other recognises, and its
loading then tells what is wrong with the name."""
