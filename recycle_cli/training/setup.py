"""What a training runs with: the store, the model in two halves, the cut, the device."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from recycle_cli.errors import MismatchError, UsageError
from recycle_cli.models import AnyLoaded, Network, SplitModel, TaskLayer, found_again, open_network
from recycle_cli.runtime.devices import device_of
from recycle_cli.settings import ModelSettings
from recycle_cli.store import Store
from recycle_cli.trunk.missing import expect


@dataclass(frozen=True)
class Setup:
    """A model split as the store was made, or as asked for where there is no store (`store` None)."""

    model: ModelSettings
    loaded: AnyLoaded
    split: SplitModel
    cut: str
    device: torch.device
    store: Store | None


def set_up(
    store: Store | None, model: ModelSettings, cut: str | None, layer: TaskLayer, *, named: bool, seed: int
) -> Setup:
    """Load the model with this last layer and split it; `named`: the user named it, so that the store's is not taken.

    Raises MismatchError where the store was made with another recipe or cut, UsageError where the cut is not clear.
    """
    dtype = "float32"
    if store is None:
        if cut is None:
            raise UsageError("without a STORE, name the --cut to train from (0 trains the whole model)")
        cuts: tuple[str, ...] = (cut,)
    else:
        model = found_again(model, store.provenance, store.recipe, named=named)
        cuts, dtype = tuple(store.recipe.cuts), store.recipe.dtype
    network = open_network(model, layer, seed=seed)
    halves = network.split(cuts, dtype)
    if store is not None:
        expect(store, halves.recipe.computed_in(store.recipe.precision))
    device = device_of(model.device)
    halves.model.to(device)
    return Setup(model, network.loaded, halves, _chosen(cut, network, halves, store), device, store)


def frozen(setups: Iterable[Setup]) -> list[Setup]:
    """Setups of one and the same model, made one by one: each trunk frozen, and in memory once."""
    done: list[Setup] = []
    for setup in setups:
        if done:
            _share_trunk(done[0], setup)
        setup.split.freeze(setup.cut)
        done.append(setup)
    return done


def _share_trunk(first: Setup, other: Setup) -> None:
    """Let `other` use the first one's tensors for all that its head does not train."""
    own = {name for name, _ in other.split.head_parameters(other.cut)}
    tensors = dict(first.split.model.named_parameters())
    for name, parameter in other.split.model.named_parameters():
        if name not in own:
            parameter.data = tensors[name].data


def _chosen(cut: str | None, network: Network, halves: SplitModel, store: Store | None) -> str:
    where = store.path if store is not None else "the model"
    if cut is None:
        if len(halves.cuts) > 1:
            raise UsageError(f"{where} holds the cuts {', '.join(halves.cuts)}; choose one with --cut")
        return halves.cuts[0]
    found = network.resolve(cut, halves)
    if found not in halves.cuts:
        raise MismatchError(
            f"{where} holds the cut {', '.join(halves.cuts)}, not {found}; name that, or precompute a store at {found}"
        )
    return found
