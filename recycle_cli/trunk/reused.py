"""The rows of another model for a training or a prediction that reuses them: from its store, or by its trunk."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from recycle_cli.errors import MismatchError, UsageError
from recycle_cli.keys import Sample, keys_of
from recycle_cli.models import NamedModel, Prepared, SplitModel, TextPreprocessor
from recycle_cli.recipe import Recipe
from recycle_cli.runtime.devices import autocast, device_holding, device_of, to_device
from recycle_cli.settings import ModelSettings
from recycle_cli.store import Store, decode
from recycle_cli.trunk.missing import expect
from recycle_cli.trunk.parity import PROBES, check_parity
from recycle_cli.trunk.rows import rows_of
from recycle_cli.trunk.stream import Indices


@dataclass(frozen=True)
class Reused:
    """The model whose last rows are reused, a SourceRows.

    cut         the cut behind its last block
    recipe      the recipe of its rows, at all cuts of the store
    provenance  the provenance of the store, by which the model is found again
    store       the store that holds the rows; None to compute them all
    unproved    holds one item until a few stored rows have been compared with the trunk's
    """

    model: NamedModel
    split: SplitModel
    cut: str
    recipe: Recipe
    provenance: Mapping[str, str]
    store: Store | None
    unproved: list[bool] = field(default_factory=list)

    @property
    def width(self) -> int:
        """Numbers of a row."""
        return self.split.row_shape[-1]

    @property
    def fingerprint(self) -> str:
        """Of the recipe of its last rows."""
        return self.recipe.at(self.cut).fingerprint

    @property
    def about(self) -> dict[str, Any]:
        """The model and the settings by which its rows are made, for programs that make them without recycle."""
        return {
            "model": self.model.name,
            "revision": self.model.settings.revision,
            "max_length": self.recipe.max_length,
            "dtype": self.recipe.dtype,
        }

    @property
    def preprocessor(self) -> TextPreprocessor:
        """How it takes samples."""
        return cast(TextPreprocessor, self.split.preprocessor)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary that a RUN keeps, for `reused_again`."""
        store = None if self.store is None else self.store.path
        recipe = self.recipe.at(self.cut).to_json()
        return {"store": store, "provenance": dict(self.provenance), "recipe": recipe}

    def find(self, samples: Sequence[Sample]) -> Indices:
        """Where the store holds each sample (n,); -1 if it does not. Raises MismatchError if its rows are wrong."""
        if self.store is None:
            return np.full(len(samples), -1, dtype=np.int64)
        places = self.store.lookup(*keys_of(samples))
        held = np.flatnonzero(places >= 0)
        if self.unproved and len(held):
            few = held[np.unique(np.linspace(0, len(held) - 1, PROBES, dtype=np.int64))]
            check_parity(self.store, self.split, [self.cut], [samples[place] for place in few.tolist()])
            self.unproved.clear()
        return places

    def rows(self, places: Indices, lengths: Indices, misses: Sequence[Prepared]) -> Tensor:
        """The rows of some samples one after another: (sum of lengths, width) float32."""
        held = places >= 0
        found = iter(self._stored(places[held], lengths[held]).split(lengths[held].tolist()))
        computed = iter(self._computed(misses, lengths[~held]).split(lengths[~held].tolist()))
        return torch.cat([next(found if one else computed) for one in held.tolist()])

    def _stored(self, places: Indices, lengths: Indices) -> Tensor:
        if not len(places):
            return torch.empty(0, self.width)
        assert self.store is not None
        stored = self.store.lengths(places)
        if (stored != lengths).any():
            place = int(np.flatnonzero(stored != lengths)[0])
            raise MismatchError(
                f"{self.store.path}: a sample has {stored[place]} stored rows and its text {lengths[place]} tokens; "
                "run `recycle store verify`, or precompute a new store"
            )
        values, scales = self.store.gather_rows(self.cut, places)
        return torch.from_numpy(decode(values, scales, self.recipe.dtype, self.store.row_shape(self.cut)))

    def _computed(self, misses: Sequence[Prepared], lengths: Indices) -> Tensor:
        """Rows by the trunk, rounded as the store would."""
        if not misses:
            return torch.empty(0, self.width)
        device = device_holding(self.split.model)
        with autocast(device, self.recipe.precision):
            activations = self.split.trunk(to_device(self.preprocessor.collate(misses), device))[self.cut]
        stored = rows_of(activations, lengths, self.recipe.dtype)
        return torch.from_numpy(decode(stored.values, stored.scales, self.recipe.dtype, stored.row_shape))


def reused_from(path: str, model: NamedModel) -> Reused:
    """The model of a store whose last rows are reused. `model`: the one that reuses them.

    Raises UsageError for a store that is not of texts, MismatchError if it lacks the last rows or has another recipe.
    """
    store = Store.open(path)
    if store.recipe.modality != "text":
        raise UsageError(f"--reuse {path}: it holds rows of {store.recipe.modality}s, expected those of texts")
    source = _named(model, store.provenance, store.recipe)
    split = source.open().split(("100%",), store.recipe.dtype)
    (last,) = split.cuts
    if last not in store.recipe.cuts:
        raise MismatchError(
            f"--reuse {path}: it holds the cut {', '.join(store.recipe.cuts)}, expected {last}, behind its model's "
            "last block; precompute a store with --cut 100%"
        )
    if len(store.recipe.cuts) > 1:
        split = source.open().stored(tuple(store.recipe.cuts), store.recipe.dtype)
    expect(store, split.recipe.computed_in(store.recipe.precision), source.name)
    split.model.to(device_of(model.settings.device)).eval()
    return Reused(source, split, last, store.recipe, store.provenance, store)


def reused_again(
    kept: Mapping[str, Any], run: str, path: str | None, model: NamedModel, *, prove: bool = True
) -> Reused:
    """The model whose rows a RUN reuses, from what the RUN kept of it; `path`: the store to take them from.

    `prove`: compare a few stored rows with the trunk's. Raises MismatchError if the model or the store has another
    recipe than it had then.
    """
    recipe, provenance = Recipe.from_json(kept["recipe"]), kept["provenance"]
    (last,) = recipe.cuts
    store = None if path is None else Store.open(path)
    if store is not None:
        if last not in store.recipe.cuts:
            raise MismatchError(f"{path} holds the cut {', '.join(store.recipe.cuts)}; this run reuses {last}")
        expect(store, recipe, provenance["model"], last)
    source = _named(model, provenance, recipe)
    split = source.open().split((last,), recipe.dtype)
    if refusal := recipe.refusal(split.recipe.computed_in(recipe.precision), provenance["model"], source.name):
        raise MismatchError(f"{run}: it reuses rows that were {refusal}")
    split.model.to(device_of(model.settings.device)).eval()
    return Reused(source, split, last, recipe, provenance, store, [True] if prove and store is not None else [])


def _named(model: NamedModel, provenance: Mapping[str, str], recipe: Recipe) -> NamedModel:
    """The model that a store was made with, which computes where `model` does."""
    asked = model.settings
    bare = ModelSettings(trust_remote_code=asked.trust_remote_code, device=asked.device)
    return NamedModel(bare).found_again(provenance, recipe, named=False)
