"""A small network in its RUN: written with what its pretrained model is, tried before the training, and read again."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors import SafetensorError

from recycle_cli.errors import MismatchError, ModelError, StorageError
from recycle_cli.keys import Sample
from recycle_cli.models import BASE, NamedModel, SplitModel, TaskLayer
from recycle_cli.models.hub import quiet
from recycle_cli.models.state_network import Base, load_network, outputs_of, save_network
from recycle_cli.recipe import Recipe
from recycle_cli.reports import spinner
from recycle_cli.runtime.devices import device_holding, to_device
from recycle_cli.store import Store
from recycle_cli.training.setup import Setup
from recycle_cli.training.states_head import StatesHead

TOLERANCE = 1e-5
"""Largest difference of two outputs of one network, as a share of the largest, that is rounding."""


def write_network(
    setup: Setup, head: StatesHead, layer: TaskLayer, folder: Path, max_length: int | None, *, whole: bool
) -> None:
    """Write a network as its RUN holds it; if it is to be `whole` its pretrained model too, into RUN/base."""
    save_network(folder, head.kept, head.network, _base(setup, head, layer, whole=whole))
    if whole:
        with quiet():
            setup.loaded.save(folder / BASE, max_length)


def _base(setup: Setup, head: StatesHead, layer: TaskLayer, *, whole: bool) -> Base:
    """What a RUN keeps of the pretrained model."""
    name = setup.model.name
    found = {
        "model": str(Path(name).resolve()) if Path(name).is_dir() else name,
        "revision": setup.model.settings.revision,
        **setup.provenance,
    }
    recipe = replace(setup.split.recipe.at(*setup.cuts).unpooled, dtype="float32")
    return Base(
        {key: value for key, value in found.items() if value is not None},
        recipe.to_json(),
        head.row_shapes,
        outputs_of(head.network, layer),
        whole,
    )


def prove_network(setup: Setup, layer: TaskLayer, head: StatesHead, samples: Sequence[Sample], folder: Path) -> None:
    """Write a network and read it again: it must give the same for a few samples. Raises ModelError if it does not, and
    StorageError if the disk of `folder`, the RUN's, does not take it."""
    disk = next(one for one in (folder.resolve(), *folder.resolve().parents) if one.is_dir())
    inputs = to_device(setup.split.collate(setup.split.prepare(samples)), device_holding(setup.split.model))
    trial = spinner("trying to save and to load its RUN")
    with trial, torch.no_grad(), torch.random.fork_rng():
        network = deepcopy(head.network).eval()
        for one in network.parameters():
            if not one.any():  # as in a linear head until it is solved, whose outputs would all be 0
                one.normal_(std=0.02)
        given = head.in_place.given(inputs)
        expected = network(*given)
        with TemporaryDirectory(prefix="recycle-proof-", dir=disk) as place:
            try:
                save_network(Path(place), head.kept, network, _base(setup, head, layer, whole=False))
            except (OSError, SafetensorError) as error:
                raise StorageError(
                    f"{disk} cannot be written ({error}), where the RUN is tried first; free some space, or choose "
                    "another --output"
                ) from error
            again = load_network(Path(place), head.kept)[0].to(expected.device)(*given)
    off = float((expected - again).abs().max() / expected.abs().max().clamp_min(1e-30))
    if not off <= TOLERANCE:
        raise ModelError(f"the {head.kept.name}, saved and loaded, gives outputs {off:.1e} off; name other cuts")


def base_again(
    run: str, base: Base, computing: NamedModel, store: Store | None, *, cut: str, every_cut: bool, pooled: bool
) -> tuple[NamedModel, SplitModel]:
    """The pretrained model of a RUN, cut where its head reads; with `every_cut` at all of the store's cuts.

    computing  how the model computes; its name is not used
    pooled     whether the head takes the vectors of a pooled store
    Raises MismatchError if the model is not what it was in the training.
    """
    kept = Recipe.from_json(base.recipe)
    name = str(Path(run, BASE)) if base.whole else base.provenance["model"]
    revision = None if base.whole else base.provenance.get("revision")
    asked = replace(computing.settings, name=name, revision=revision, max_length=kept.max_length)
    model = NamedModel(asked).found_again(base.provenance, kept, named=True)
    cuts, dtype = tuple(cut.split(",")), "float32"
    if store is not None:
        cuts, dtype = tuple(store.recipe.cuts) if every_cut else cuts, store.recipe.dtype
    split = model.open().stored(cuts, dtype, store.recipe.poolings if store is not None and pooled else ())
    now = replace(split.recipe.at(*cut.split(",")).unpooled, dtype=kept.dtype)
    if difference := kept.difference(now):
        changes = difference.replace(" in the store", " then").replace(" asked for", " now")
        raise MismatchError(
            f"{run}: its pretrained model {name} is not what it was in the training ({changes}); put that one back"
        )
    return model, split
