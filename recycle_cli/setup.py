"""What a training runs with: the store, the model in two halves, the cut, the device."""

from dataclasses import dataclass, replace

import torch

from recycle_cli.coverage import expect
from recycle_cli.devices import device_of
from recycle_cli.errors import MismatchError, UsageError
from recycle_cli.models import Loaded, SplitModel, default_max_length, load, resolve_cut, split
from recycle_cli.settings import ModelSettings
from recycle_cli.store import Store


@dataclass(frozen=True)
class Setup:
    """A model split as the store was made, or as asked for where there is no store (`store` None)."""

    model: ModelSettings
    loaded: Loaded
    split: SplitModel
    cut: str
    device: torch.device
    store: Store | None


def set_up(
    store: Store | None, model: ModelSettings, cut: str | None, names: list[str], *, named: bool, seed: int
) -> Setup:
    """Load and split the model; `named` says that the user named it, so that the store's own is not taken.

    Raises MismatchError where the store was made with another recipe or cut, UsageError where the cut is not clear.
    """
    dtype = "float32"
    if store is None:
        if cut is None:
            raise UsageError("without a STORE, name the --cut to train from (0 trains the whole model)")
        cuts: tuple[str, ...] = (cut,)
    else:
        model = _as_stored(store, model, named=named)
        cuts, dtype = tuple(store.recipe.cuts), store.recipe.dtype
    loaded = load(
        model.name, labels=names, revision=model.revision, trust_remote_code=model.trust_remote_code, seed=seed
    )
    halves = split(loaded, cuts, max_length=model.max_length or default_max_length(loaded), dtype=dtype)
    if store is not None:
        expect(store, halves.recipe)
    device = device_of(model.device)
    halves.model.to(device)
    return Setup(model, loaded, halves, _chosen(cut, halves, store), device, store)


def _as_stored(store: Store, model: ModelSettings, *, named: bool) -> ModelSettings:
    """The store's own model and length where the user named none."""
    if not named:
        model = replace(model, name=store.provenance["model"], revision=store.provenance.get("revision"))
    return model if model.max_length else replace(model, max_length=store.recipe.max_length)


def _chosen(cut: str | None, halves: SplitModel, store: Store | None) -> str:
    where = store.path if store is not None else "the model"
    if cut is None:
        if len(halves.cuts) > 1:
            raise UsageError(f"{where} holds the cuts {', '.join(halves.cuts)}; choose one with --cut")
        return halves.cuts[0]
    found = resolve_cut(cut, halves.blocks)
    if found not in halves.cuts:
        raise MismatchError(
            f"{where} holds the cut {', '.join(halves.cuts)}, not {found}; name that, or precompute a store at {found}"
        )
    return found
