"""Cross-model reuse: the rows of another model, the source, are added to what this model gives its first block.

The last experiment of Embedding Recycling (Saad-Falcon et al., EACL Findings 2023): two linear layers with a ReLU
between them bring the source's last rows to this model's width, and a tenth of them is added to its embeddings.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from threading import RLock
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from recycle_cli.errors import StoreError, UsageError
from recycle_cli.keys import Sample
from recycle_cli.models.forwards import watching
from recycle_cli.models.network import BASE, AnyLoaded, Network
from recycle_cli.models.preprocessor import Inputs, Prepared, TextPreprocessor
from recycle_cli.models.split_model import Parameters, SplitModel
from recycle_cli.models.text.blocks import Arguments, Block, rows_of, with_rows
from recycle_cli.models.text.load import Loaded
from recycle_cli.models.text.row_alignment import Ranges, matching, means, one_by_one
from recycle_cli.models.text.spans import Piece
from recycle_cli.models.text.split import uncut
from recycle_cli.models.text.tokens import default_max_length
from recycle_cli.models.text.windows import TextWindow
from recycle_cli.recipe import canonical_digest

HIDDEN, DIVISOR = 1024, 10
"""The width between the two layers, and what their output is divided by: the paper's."""

NAME = "recycle_reuse"
"""What the two layers are called in the model."""

REUSE, CONFIG, WEIGHTS = "reuse", "config.json", "model.safetensors"
"""The folder in a RUN that holds them, and its files."""

REUSED = "reused"
"""The input that holds a batch's source rows (B, L, width), a row for each of this model's tokens."""

_THEIRS, _RANGES, _HELD = "source.", "reuse.ranges", "reuse.held"
"""What a prepared sample holds beside the model's own inputs: the source's, the source's rows for each token, and the
place in the source's store with the number of rows."""


class SourceRows(Protocol):
    """The last rows of another model for any sample: stored ones if there are, else computed as they would be stored.

    width         numbers of a row
    fingerprint   of the recipe of its rows
    about         the model, as a RUN names it
    preprocessor  how it takes samples
    """

    @property
    def width(self) -> int: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def about(self) -> Mapping[str, Any]: ...

    @property
    def preprocessor(self) -> TextPreprocessor: ...

    def to_json(self) -> dict[str, Any]:
        """What a RUN keeps of it, to find it again."""

    def find(self, samples: Sequence[Sample]) -> npt.NDArray[np.int64]:
        """Where the store holds each sample (n,); -1 if it does not."""

    def rows(self, places: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], misses: Sequence[Prepared]) -> Tensor:
        """The rows of some samples one after another, (sum of lengths, width) float32, by `find`'s places.

        `misses`: the source's inputs of those that are not held, in their order. Raises MismatchError if the store
        has another number of rows of a sample than its text has tokens.
        """


class Bridge(nn.Module):
    """Source rows (..., source width) to what is added to this model's (..., width)."""

    def __init__(self, source: int, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(source, HIDDEN), nn.Linear(HIDDEN, width)

    def forward(self, rows: Tensor) -> Tensor:
        added: Tensor = self.second(torch.relu(self.first(rows))) / DIVISOR
        return added


@dataclass(frozen=True)
class ReusingInputs:
    """The preprocessor of a model that reuses another's rows, a TextPreprocessor: with the model's own inputs come the
    source's rows, a row for each token.

    Samples that both models cut into the same tokens have them row by row; else they are matched by their characters.
    """

    own: TextPreprocessor
    source: SourceRows
    modality = "text"
    row_cost = 1

    @cached_property
    def digest(self) -> str:
        """Digest of both tokenizers and of the source's rows."""
        return canonical_digest({"own": self.own.digest, "source": self.source.fingerprint})

    def prepare(self, samples: Sequence[Sample]) -> list[Prepared]:
        """The model's own inputs, and all that finds the source's rows; these are read when a batch is made."""
        own, theirs = self.own.prepare(samples), self.source.preprocessor.prepare(samples)
        lengths = self.source.preprocessor.lengths(theirs)
        held = np.stack((self.source.find(samples), lengths), axis=1)
        ranges = self._ranges(samples, self.own.lengths(own), lengths)
        return [
            {
                **mine,
                _RANGES: rows,
                _HELD: place,
                **({} if place[0] >= 0 else {f"{_THEIRS}{name}": values for name, values in other.items()}),
            }
            for mine, rows, place, other in zip(own, ranges, held, theirs, strict=True)
        ]

    def collate(self, prepared: Sequence[Prepared]) -> Inputs:
        """The model's own inputs of a batch, and the source's rows (B, L, source width), zeros at padding."""
        batch = self.own.collate([_without(one, _THEIRS, _RANGES, _HELD) for one in prepared])
        held = np.stack([one[_HELD] for one in prepared])
        values = self.source.rows(held[:, 0], held[:, 1], [_theirs(one) for one in prepared if one[_HELD][0] < 0])
        starts = np.cumsum(held[:, 1]) - held[:, 1]
        rows = means(
            values, np.concatenate([one[_RANGES] + start for one, start in zip(prepared, starts, strict=True)])
        )
        mask = batch["attention_mask"].bool()
        batch[REUSED] = rows.new_zeros(*mask.shape, rows.shape[1])
        batch[REUSED][mask] = rows
        return batch

    def lengths(self, prepared: Sequence[Prepared]) -> npt.NDArray[np.int64]:
        """Tokens of each sample (n,)."""
        return self.own.lengths(prepared)

    def spans(self, samples: Sequence[Sample]) -> list[npt.NDArray[np.int64]]:
        """The places of the model's own tokens, as TextPreprocessor says."""
        return self.own.spans(samples)

    @property
    def max_length(self) -> int:
        """The model's own tokens that are kept of a text."""
        return self.own.max_length

    def token_counts(self, samples: Sequence[Sample]) -> npt.NDArray[np.int64]:
        """The model's own tokens, none cut off."""
        return self.own.token_counts(samples)

    def text_of(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """The text of the model's own tokens."""
        return self.own.text_of(ids, skip_special=skip_special)

    def pieces(self, text: str, *, special: bool) -> list[Piece]:
        """The model's own tokens."""
        return self.own.pieces(text, special=special)

    def windows(self, sample: Sample, stride: int | None) -> list[TextWindow]:
        """The windows of the model's own tokens, as TextPreprocessor says."""
        return self.own.windows(sample, stride)

    def _ranges(
        self, samples: Sequence[Sample], own: npt.NDArray[np.int64], theirs: npt.NDArray[np.int64]
    ) -> list[Ranges]:
        """The source's rows for each token of each sample; `own`, `theirs`: how many of each there are (n,)."""
        if self.own.digest == self.source.preprocessor.digest and (own == theirs).all():
            return [one_by_one(int(length)) for length in own]
        spans = zip(self.own.spans(samples), self.source.preprocessor.spans(samples), strict=True)
        return [matching(mine, others) for mine, others in spans]


def _without(prepared: Prepared, *beginnings: str) -> Prepared:
    return {name: values for name, values in prepared.items() if not name.startswith(beginnings)}


def _theirs(prepared: Prepared) -> Prepared:
    return {name.removeprefix(_THEIRS): one for name, one in prepared.items() if name.startswith(_THEIRS)}


@dataclass(frozen=True)
class LoadedReusing:
    """A model with the two layers that bring the source's rows in. Its checkpoint is in RUN/base, they are in
    RUN/reuse: RUN/base alone gives other outputs."""

    own: AnyLoaded
    bridge: Bridge
    about: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The name or folder it was loaded by."""
        return self.own.name

    @property
    def model(self) -> Any:
        """The module with its task layer."""
        return self.own.model

    @property
    def labels(self) -> tuple[str, ...]:
        """A name for each output."""
        return self.own.labels

    @property
    def missing(self) -> frozenset[str]:
        """Names of the parameters that the checkpoint does not have."""
        return self.own.missing

    @property
    def library(self) -> str:
        """The library whose checkpoint lies in RUN/base."""
        return self.own.library

    @property
    def loads_with(self) -> str:
        """The call that loads RUN/base."""
        return self.own.loads_with

    def save(self, folder: Path, max_length: int | None) -> None:
        """Write the model into RUN/base, and the two layers into RUN/reuse."""
        del self.model._modules[NAME]
        try:
            self.own.save(folder / BASE, max_length)
        finally:
            self.model.add_module(NAME, self.bridge)
        target = folder / REUSE
        target.mkdir(exist_ok=True)
        (target / CONFIG).write_text(json.dumps({**self.about, "divisor": DIVISOR}, indent=2) + "\n", encoding="utf-8")
        tensors = {name: one.detach().cpu().contiguous() for name, one in self.bridge.state_dict().items()}
        save_file(tensors, target / WEIGHTS, {"format": "pt"})

    def put_back(self, run: Path) -> None:
        """Fill the two layers from a RUN. Raises StoreError if they are damaged."""
        try:
            self.bridge.load_state_dict(load_file(run / REUSE / WEIGHTS))
        except (OSError, RuntimeError, SafetensorError) as error:
            said = " ".join(str(error).split())
            raise StoreError(f"{run / REUSE} is damaged ({said}); train the run again") from error


def reusing(network: Network, source: SourceRows, seed: int) -> Network:
    """A text model that reuses the rows of another, by layers made from `seed`. It can be cut at 0 alone."""
    loaded = cast(Loaded, network.loaded)
    engine, _, _ = uncut(loaded, default_max_length(loaded))
    block = engine.blocks[0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        bridge = Bridge(source.width, block.width)
    loaded.model.add_module(NAME, bridge)

    def split(cuts: Sequence[str], dtype: str) -> SplitModel:
        halves = network.split(cuts, dtype)
        if halves.cuts != ("0",):
            raise UsageError(
                f"--cut {', '.join(cuts)}: with --reuse the whole model trains (cut 0), since the other model's rows "
                "enter before its first block; leave out --cut"
            )
        return _halves(halves, block, bridge, source)

    return replace(network, loaded=LoadedReusing(network.loaded, bridge, source.about), split=split, at_states=None)


def _halves(halves: SplitModel, block: Block, bridge: Bridge, source: SourceRows) -> SplitModel:
    inputs = ReusingInputs(cast(TextPreprocessor, halves.preprocessor), source)
    own = [(f"{NAME}.{name}", one) for name, one in bridge.named_parameters()]
    parameters: Callable[[str], Parameters] = halves.head_parameters
    return replace(
        halves,
        recipe=replace(
            halves.recipe, preprocessor=inputs.digest, extra={**halves.recipe.extra, "reuse": source.fingerprint}
        ),
        preprocessor=inputs,
        full=_Full(halves.full, halves.model, block, bridge),
        head_parameters=lambda cut: [*parameters(cut), *own],
    )


class _Full:
    """Outputs of the whole model over inputs with REUSED among them."""

    def __init__(self, full: Callable[[Inputs], Tensor], model: nn.Module, block: Block, bridge: Bridge) -> None:
        self._full, self._model, self._block, self._bridge = full, model, block, bridge
        self._added: Tensor | None = None
        self._lock = RLock()  # two threads take turns, as in the engine

    def __call__(self, batch: Mapping[str, Tensor]) -> Tensor:
        entry = self._block.parts[0].module
        with self._lock, watching(self._model, self._take), watching(entry, self._add):
            return self._full(dict(batch))

    def _take(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        """Before the model: its inputs without the source's rows, which the model does not know."""
        rest = dict(kwargs)
        self._added = self._bridge(rest.pop(REUSED))
        return args, rest

    def _add(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        """Before the first block: what it is given, and the source's share."""
        assert self._added is not None
        given = rows_of(args, kwargs)
        own = self._block.turned(given)
        # Longformer pads to its window inside.
        added = nn.functional.pad(self._added, (0, 0, 0, own.shape[1] - self._added.shape[1]))
        return with_rows(args, kwargs, self._block.turned(own + added.to(own.dtype)))
