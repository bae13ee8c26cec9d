"""Texts to embeddings: an encoder, a pooling and an embedding layer, saved as sentence-transformers loads them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from recycle_cli.errors import ModelError
from recycle_cli.models.embedding import EmbeddingLayer, LinearEmbedding, new_embedding, numbered
from recycle_cli.models.hub import Source, quiet, read_json, read_json_list
from recycle_cli.models.text.load import Loaded, load_encoder
from recycle_cli.models.text.pooled import POOLINGS, Pooled
from recycle_cli.models.text.pooled_head import LoadedPooled, load_bare
from recycle_cli.settings import EmbeddingSettings

POOLING, DENSE, NORMALIZE = "1_Pooling", "2_Dense", "3_Normalize"
CONFIG, WEIGHTS = "config.json", "model.safetensors"


_FLAGS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "lasttoken",
}
"""The names of the same poolings in its older files."""


class TextEmbedder(Pooled):
    """Texts to vectors (B, size), not normalised."""

    layer: EmbeddingLayer


@dataclass(frozen=True)
class LoadedEmbedder(Loaded):
    """A `TextEmbedder` and its tokenizer. `labels` number the places of the vector."""

    library = "sentence-transformers"

    @property
    def loads_with(self) -> str:
        """The class of sentence-transformers."""
        return "SentenceTransformer"

    @property
    def labels(self) -> tuple[str, ...]:
        """A name for each output."""
        return numbered(self.model.layer.linear.out_features)

    def save(self, folder: Path, max_length: int | None) -> None:
        """Write the encoder as transformers does, and beside it the modules by which sentence-transformers goes on."""
        encoder, dense = self.model.encoder, self.model.layer.merged()
        with quiet():
            self.tokenizer.model_max_length = max_length
            encoder.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
        kinds = {"": "Transformer", POOLING: "Pooling", DENSE: "Dense", NORMALIZE: "Normalize"}
        modules = [
            {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for number, (path, kind) in enumerate(kinds.items())
        ]
        _write(folder / "modules.json", modules)
        _write(folder / "sentence_bert_config.json", {"max_seq_length": max_length, "do_lower_case": False})
        flags = {flag: name == self.model.pooling for flag, name in _FLAGS.items()}
        _write(folder / POOLING / CONFIG, {"word_embedding_dimension": dense.in_features, **flags})
        about = {"in_features": dense.in_features, "out_features": dense.out_features, "bias": True}
        _write(folder / DENSE / CONFIG, {**about, "activation_function": "torch.nn.modules.linear.Identity"})
        tensors = {"linear.weight": dense.weight, "linear.bias": dense.bias}
        save_file({name: one.detach().cpu().contiguous() for name, one in tensors.items()}, folder / DENSE / WEIGHTS)
        (folder / NORMALIZE).mkdir(exist_ok=True)


def settle_embedding(model: nn.Module) -> None:
    """If the model is an embedder, give it the plain linear layer that a saved one is loaded with."""
    if isinstance(model, TextEmbedder):
        model.layer = LinearEmbedding(model.layer.merged())


def load_embedder(source: Source | str, head: EmbeddingSettings | None, *, seed: int = 0) -> LoadedEmbedder:
    """Load an encoder with its own pooling, or the mean if it names none, and a new layer; `head` None: a RUN's own.

    Raises ModelError if it cannot be loaded, pools in a way we do not have, or has no layer of its own.
    """
    source = Source(source) if isinstance(source, str) else source
    loaded = load_encoder(source)
    if head is None:
        layer, missing = _own_layer(Path(source.name)), frozenset[str]()
    else:
        layer = new_embedding(loaded.model.config.get_text_config().hidden_size, head, seed)
        missing = frozenset(f"layer.{key}" for key, _ in layer.named_parameters())
    missing |= {f"encoder.{key}" for key in loaded.missing}
    model = TextEmbedder(loaded.model, _pooling(source), layer)
    return LoadedEmbedder(source.name, model.eval(), loaded.tokenizer, missing)


def load_vectors(source: Source) -> LoadedPooled:
    """Load an encoder with its own pooling, or the mean if it names none, and no layer behind: the vectors by which
    sentence-transformers embeds texts with it, but for their length.

    Raises ModelError if it cannot be loaded, pools in a way we do not have, or goes on behind its pooling.
    """
    for module in read_json_list(source.name, "modules.json", source.revision):
        kind = str(module.get("type") if isinstance(module, dict) else module).rpartition(".")[-1]
        if kind not in ("Transformer", "Pooling", "Normalize"):
            raise ModelError(
                f"model {source.name!r}: its modules.json puts a {kind} behind the encoder, expected Pooling and "
                "Normalize alone"
            )
    loaded = load_bare(source)
    loaded.model.pooling = _pooling(source)
    return loaded


def _pooling(source: Source) -> str:
    """The checkpoint's way of pooling. Raises ModelError if it is not one of POOLINGS."""
    config = read_json(source.name, f"{POOLING}/{CONFIG}", source.revision)
    given = config.get("pooling_mode", [mode for flag, mode in _FLAGS.items() if config.get(flag)])
    modes = [given] if isinstance(given, str) else list(given)
    others = [flag for flag, on in config.items() if flag.startswith("pooling_mode_") and on and flag not in _FLAGS]
    if not config:
        return "mean"
    if len(modes) != 1 or modes[0] not in POOLINGS or others:
        raise ModelError(
            f"model {source.name!r}: it pools by {', '.join(modes + others) or 'nothing known'}; expected one of "
            f"{', '.join(POOLINGS)}"
        )
    return modes[0]


def _own_layer(folder: Path) -> EmbeddingLayer:
    try:
        tensors = load_file(folder / DENSE / WEIGHTS)
        weight, bias = tensors["linear.weight"], tensors["linear.bias"]
    except (OSError, RuntimeError, KeyError, SafetensorError) as error:
        raise ModelError(f"{folder / DENSE / WEIGHTS} cannot be read ({error}); train the run again") from error
    linear = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        linear.weight.copy_(weight)
        linear.bias.copy_(bias)
    return LinearEmbedding(linear)


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
