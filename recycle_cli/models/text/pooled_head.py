"""The pooled head of Embedding Recycling, on any encoder: also on one that has no class for classification, and on the
encoder of an encoder-decoder model.

Saab-Falcon et al. (EACL Findings 2023) put it on every model: the first token's row, or the mean over all, then two
linear layers, 256 wide between them, without a nonlinearity (so their code; the paper says only "linear layers").
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from recycle_cli.disk import read_object
from recycle_cli.errors import ModelError
from recycle_cli.models.hub import Source, quiet
from recycle_cli.models.same_labels import fit_rows
from recycle_cli.models.task_layer import TaskLayer
from recycle_cli.models.text.load import Loaded, encoder_of, load_encoder
from recycle_cli.models.text.pooled import Pooled

HIDDEN = 256

Own = tuple[dict[str, Any], dict[str, Tensor]]
"""What a RUN says of its head, and the head's tensors."""

HEAD, CONFIG, WEIGHTS = "head", "config.json", "model.safetensors"
"""The folder in a RUN that holds the head, and its files."""


class PooledHead(nn.Module):
    """Vectors (B, width) to outputs (B, C), by way of HIDDEN numbers."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, HIDDEN), nn.Linear(HIDDEN, outputs)

    def forward(self, vectors: Tensor) -> Tensor:
        """Vectors to outputs."""
        outputs: Tensor = self.second(self.first(vectors))
        return outputs


@dataclass(frozen=True)
class LoadedPooled(Loaded):
    """An encoder with a pooled head, or with none (the identity), and its tokenizer.

    whole    the model that is saved as transformers does: the encoder, or the encoder-decoder model that it is part of
    names    a name for each output
    problem  transformers' `problem_type` of the head
    """

    whole: Any = None
    names: tuple[str, ...] = ()
    problem: str = ""
    encoder_alone = True

    @property
    def labels(self) -> tuple[str, ...]:
        """A name for each output of the head."""
        return self.names

    @property
    def loads_with(self) -> str:
        """The call that loads the encoder."""
        alone = "" if self.whole is self.model.encoder else "(RUN).get_encoder"
        return f"AutoModel.from_pretrained{alone}"

    def save(self, folder: Path, max_length: int | None) -> None:
        """Write the encoder and the tokenizer as transformers does, and the head into `head`."""
        with quiet():
            self.tokenizer.model_max_length = max_length
            self.whole.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
        about = {"pooling": self.model.pooling, "problem_type": self.problem, "labels": list(self.names)}
        target = folder / HEAD
        target.mkdir(exist_ok=True)
        (target / CONFIG).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        tensors = {name: one.detach().cpu().contiguous() for name, one in self.model.layer.state_dict().items()}
        save_file(tensors, target / WEIGHTS, {"format": "pt"})


def load_pooled(source: Source, layer: TaskLayer, *, seed: int = 0) -> LoadedPooled:
    """Load an encoder with a pooled head for the labels of `layer`; without labels a RUN's own head.

    A head that the checkpoint does not have, with the same pooling and the same labels in any order, is made from
    `seed`. Raises ModelError if the encoder cannot be loaded, or there is no head and none is to be made.
    """
    encoder = load_encoder(source)
    known = _own_head(source)
    if layer.labels is None and known is None:
        raise ModelError(f"model {source.name!r}: no head in {source.name}/{HEAD}; train the run again")
    pooling, labels, problem = str(layer.pooled), layer.labels or (), layer.problem
    if known is not None and layer.labels is None:
        pooling, labels, problem = known[0]["pooling"], tuple(known[0]["labels"]), known[0]["problem_type"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = PooledHead(encoder.model.config.get_text_config().hidden_size, len(labels))
    missing = frozenset(f"layer.{name}" for name, _ in head.named_parameters())
    if known is not None and known[0]["pooling"] == pooling and len(known[0]["labels"]) == len(labels):
        missing = _filled(head, source, known, labels)
    return _loaded(encoder, pooling, head, missing, labels, problem)


def load_bare(source: Source) -> LoadedPooled:
    """Load an encoder without a head, for its rows alone: its outputs are the mean over a text's tokens."""
    encoder = load_encoder(source)
    width = encoder.model.config.get_text_config().hidden_size
    return _loaded(encoder, "mean", nn.Identity(), frozenset(), tuple(map(str, range(width))), "")


def _loaded(
    encoder: Loaded, pooling: str, head: nn.Module, missing: frozenset[str], names: tuple[str, ...], problem: str
) -> LoadedPooled:
    """Put head and encoder together."""
    own = encoder_of(encoder.model)
    inside = next(name for name, module in encoder.model.named_modules() if module is own)
    before = f"{inside}." if inside else ""
    absent = {name.removeprefix(before) for name in encoder.missing if name.startswith(before)}
    missing |= {f"encoder.{name}" for name in absent}
    model = Pooled(own, pooling, head).eval()
    return LoadedPooled(
        encoder.name, model, encoder.tokenizer, missing, whole=encoder.model, names=names, problem=problem
    )


def _own_head(source: Source) -> Own | None:
    """What a RUN's head is, and its tensors; None for a model without one. Raises ModelError if it is damaged."""
    folder = Path(source.name) / HEAD
    if not (folder / CONFIG).is_file():
        return None
    try:
        about = read_object(folder / CONFIG)
        if missing := {"pooling", "labels", "problem_type"} - about.keys():
            raise ValueError(f"{CONFIG} lacks {min(missing)}")
        return about, load_file(folder / WEIGHTS)
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise ModelError(f"{folder} cannot be read ({error}); train the run again") from error


def _filled(head: PooledHead, source: Source, known: Own, labels: Sequence[str]) -> frozenset[str]:
    """Give a new head the weights of a RUN's own, the outputs in the order of `labels`; the names of what stays new."""
    about, tensors = known
    new = {name: one.detach().clone() for name, one in head.second.named_parameters()}
    try:
        head.load_state_dict(tensors)
    except RuntimeError as error:
        said = " ".join(str(error).split())
        raise ModelError(
            f"{Path(source.name) / HEAD} does not fit its {CONFIG} ({said}); train the run again"
        ) from error
    rows = {f"layer.second.{name}": (one.detach(), 0) for name, one in head.second.named_parameters()}

    def renew() -> None:
        head.second.load_state_dict(new)

    return fit_rows(source.name, about["labels"], labels, rows, renew)
