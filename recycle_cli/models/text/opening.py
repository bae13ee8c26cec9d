"""Open a text model by name, ready to be split."""

import transformers

from recycle_cli.models.cuts import resolve_cut
from recycle_cli.models.hub import Source
from recycle_cli.models.layers import Layer
from recycle_cli.models.network import Network
from recycle_cli.models.task_layer import OWN, SEQUENCES, VECTORS, TaskLayer
from recycle_cli.models.text.embedder import load_embedder, load_vectors
from recycle_cli.models.text.engine import forward_names
from recycle_cli.models.text.kinds import has_class
from recycle_cli.models.text.layers import layers
from recycle_cli.models.text.load import Loaded, config_of, load_with, load_without_weights
from recycle_cli.models.text.pooled_head import load_bare, load_pooled
from recycle_cli.models.text.split import split
from recycle_cli.models.text.tokens import TextInputs, default_max_length, text_inputs


def open_text(source: Source, max_length: int | None, layer: TaskLayer = OWN, seed: int = 0) -> Network:
    """Load a text model that can be split. Raises ModelError, UsageError."""
    loaded = _loaded(source, layer, seed)
    longest = max_length or default_max_length(loaded)
    return Network(
        loaded,
        split=lambda cuts, dtype: split(loaded, cuts, max_length=longest, dtype=dtype),
        resolve=lambda cut, halves: resolve_cut(cut, halves.blocks),
        at_states=lambda cuts, dtype: split(loaded, cuts, max_length=longest, dtype=dtype, state_0=True),
    )


def _loaded(source: Source, layer: TaskLayer, seed: int) -> Loaded:
    if layer == VECTORS:
        return load_vectors(source)
    if layer.embeds:
        return load_embedder(source, layer.head, seed=seed)
    if layer.pooled is not None:
        return load_pooled(source, layer, seed=seed)
    if layer == OWN and not _classifies(source):
        return load_bare(source)
    return load_with(layer, source, seed=seed)


def _classifies(source: Source) -> bool:
    """Whether the model classifies texts by rows alone: the decoder of an encoder-decoder model reads them again."""
    config = config_of(source)
    return has_class(config, getattr(transformers, SEQUENCES)) and not config.is_encoder_decoder


def preprocessor_of_text(source: Source, max_length: int | None) -> TextInputs:
    """How a text model takes texts, known without its weights. Raises ModelError, UsageError."""
    bare = load_without_weights(source)
    return text_inputs(bare, sorted(forward_names(bare.model)), max_length or default_max_length(bare))


def layers_of_text(source: Source, max_length: int | None, dtype: str) -> tuple[list[Layer], int]:
    """Every cut of a text model, and the tokens of the text that its bytes are of."""
    loaded = _loaded(source, OWN, 0)
    length = max_length or default_max_length(loaded)
    return layers(loaded, length=length, dtype=dtype), length
