"""A pretrained model of any modality, known by its name and opened when it is needed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from recycle_cli.disk import expanded
from recycle_cli.errors import UsageError
from recycle_cli.models.hub import Source, opening
from recycle_cli.models.layers import Layer
from recycle_cli.models.modalities import IMAGE, MODALITIES, TEXT, Modality
from recycle_cli.models.network import Network
from recycle_cli.models.preprocessor import Preprocessor
from recycle_cli.models.split_model import SplitModel
from recycle_cli.models.task_layer import OWN, TaskLayer
from recycle_cli.models.text.reuse import SourceRows, reusing
from recycle_cli.recipe import Recipe
from recycle_cli.reports import spinner
from recycle_cli.settings import ModelSettings

Split = Callable[[Sequence[str], str], SplitModel]


@dataclass(frozen=True)
class NamedModel:
    """A model that is not loaded yet. What opens it raises ModelError if it cannot be found or loaded, and UsageError
    for settings that do not fit it. `reused`: another model's rows, which are added to those of its embeddings."""

    settings: ModelSettings
    reused: SourceRows | None = None

    @property
    def name(self) -> str:
        """The folder, or the name on the hub or in torchvision."""
        return expanded(self.settings.name)

    @property
    def modality(self) -> str:
        """The name of the kind of input that the model takes."""
        return self._modality.name

    @cached_property
    def _modality(self) -> Modality:
        known = reversed(MODALITIES.values())
        with spinner(f"looking for the model {self.name}"):
            return next(one for one in known if one.recognises(self.name, self.settings.revision))

    @property
    def _source(self) -> Source:
        return Source(self.name, self.settings.revision, self.settings.trust_remote_code)

    def open(self, layer: TaskLayer = OWN, *, seed: int = 0) -> Network:
        """Load it with `layer` at its end, which is made from `seed` if the checkpoint does not have it."""
        self.refuse_foreign(self.name, self.modality)
        modality = self._modality
        if self.reused is not None and modality.name != TEXT:
            raise UsageError(f"--reuse: {self.name} takes {modality.noun}; only models of texts reuse another's rows")
        with opening(self.name), spinner(f"loading the model {self.name}"):
            network = modality.open(self._source, self.settings, layer, seed)
            if self.reused is not None:
                network = reusing(network, self.reused, seed)

        def told(split: Split) -> Split:
            def splitting(cuts: Sequence[str], dtype: str) -> SplitModel:
                with opening(self.name), spinner(f"cutting the model {self.name}, and proving its cuts"):
                    return split(cuts, dtype)

            return splitting

        return replace(network, split=told(network.split), at_states=told(network.stored))

    def preprocessor(self) -> Preprocessor:
        """Its preprocessor, opened without the weights if the modality allows."""
        if self._modality.preprocessor is None:
            return self.open().split(("0",), "float32").preprocessor
        with opening(self.name):
            return self._modality.preprocessor(self._source, self.settings)

    def layers(self, dtype: str) -> tuple[list[Layer], int | None]:
        """Every cut in order of computation, with the bytes of one sample in `dtype`; and the tokens of that sample.

        The tokens are `max_length` or the most that the model takes; None for an image, which is one row. For an image
        model of torchvision no weights are fetched.
        """
        if self.modality != IMAGE and self.settings.images.resize:
            # `recycle layers` has one option of images, with a name of its own.
            size = self.settings.images.resize[0]
            raise UsageError(f"--image-size {size}: {self.name} takes {self._modality.noun}; leave the option out")
        self.refuse_foreign(self.name, self.modality)
        modality = self._modality
        with opening(self.name), spinner(f"looking for the cuts of the model {self.name}"):
            return modality.layers(self._source, self.settings, dtype)

    def refuse_foreign(self, taker: str, modality: str) -> None:
        """Raise UsageError for an option of another modality: it would have no effect, and be taken for done.

        `taker`: the model or store that has the modality.
        """
        own = MODALITIES[modality]
        for other in MODALITIES.values():
            if other is not own and (given := other.own_options(self.settings)):
                raise UsageError(f"{', '.join(given)}: {taker} takes {own.noun}, not {other.noun}; {other.remedy}")

    def found_again(self, provenance: Mapping[str, str], recipe: Recipe, *, named: bool) -> "NamedModel":
        """The model of a store, with the settings that the store had; what the user gave comes first.

        `named`: the user gave the model's name.
        """
        model = self.settings
        if not named:
            model = replace(model, name=provenance["model"], revision=provenance.get("revision"))
        return NamedModel(MODALITIES[recipe.modality].found_again(model, provenance, recipe))
