"""Open a RUN, or a model without one, so that it is ready to score samples."""

import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from recycle_cli.batches import INPUTS
from recycle_cli.disk import expanded
from recycle_cli.errors import MismatchError, UsageError
from recycle_cli.models import BASE, STATE_0, VECTORS, NamedModel, Network, SplitModel
from recycle_cli.models.adapters import put_back
from recycle_cli.models.ladder import Layout
from recycle_cli.models.probe import Probe
from recycle_cli.models.state_network import LADDER, PROBE, Kept, N, load_network
from recycle_cli.recipe import Recipe
from recycle_cli.reports import say
from recycle_cli.runs import RunInfo, check_files, read_info
from recycle_cli.runtime.devices import device_of
from recycle_cli.scorer.loaded_run import LoadedRun
from recycle_cli.scorer.pooled_embedding import PooledEmbedding
from recycle_cli.scorer.scorer import Scorer
from recycle_cli.settings import ModelSettings, PrecomputeSettings, PredictSettings, words_of
from recycle_cli.store import Store
from recycle_cli.tasks import task_of, task_of_run
from recycle_cli.training import LadderHead, ProbeHead, base_again, poolings_of
from recycle_cli.training.head import Head
from recycle_cli.trunk import Reused, expect, reused_again


def open_scorer(run: str, store: Store | str | None, model: ModelSettings, settings: PredictSettings) -> Scorer:
    """A RUN ready to score samples, under the name of its folder. Raises StoreError if it is no finished RUN."""
    info = read_info(run)
    check_files(run, info)
    folder = expanded(run)
    named = NamedModel(
        replace(model, name=str(Path(folder, BASE)) if info.apart else folder, max_length=info.max_length)
    )
    if info.reuse is not None:
        path = store.path if isinstance(store, Store) else store
        named = replace(named, reused=_reused(info.reuse, run, path, named, settings))
    opened = None if store is None or info.reuse is not None else _store_for(store, info)
    if info.pooled:
        loaded = _load_network(PROBE, run, info, named, opened, every_cut=settings.write_back)
    elif info.ladder:
        loaded = _load_network(LADDER, run, info, named, opened, every_cut=settings.write_back)
    else:
        loaded = _load_run(run, info, named, opened, every_cut=settings.write_back)
    if settings.threshold != PredictSettings.threshold:
        try:
            loaded = replace(loaded, task=loaded.task.at_threshold(settings.threshold))
        except UsageError as error:
            raise UsageError(f"--threshold {settings.threshold:g}: {run}: {error}") from None
    return Scorer({run: loaded}, opened, settings)


def open_embedder(store: Store | None, model: NamedModel, settings: PredictSettings) -> Scorer:
    """A text model that was not trained here, ready to embed: its vectors are the pooled rows of its last block, of
    length one, as sentence-transformers gives them. Hits go on from the store's deepest cut.

    Raises UsageError for a model of images, MismatchError for another store, ModelError if it cannot be loaded.
    """
    named = model if store is None else model.found_again(store.provenance, store.recipe, named=True)
    if named.modality != "text":
        raise UsageError(f"{named.name} is a model of {named.modality}s without a RUN; name a RUN of --task similarity")
    network = named.open(VECTORS)
    if store is None:
        split = network.split(("100%",), "float32")
    else:
        split = network.stored((list(store.recipe.cuts)[-1],), store.recipe.dtype, store.recipe.poolings)
        expect(store, split.recipe.computed_in(store.recipe.precision), named.name, split.cuts[-1])
    split.model.to(device_of(named.settings.device)).eval()
    cut = split.cuts[-1]
    info = RunInfo("similarity", named.name, cut, {}, max_length=named.settings.max_length)
    if split.poolings:
        head: Head = PooledEmbedding(split, cut, network.loaded.model.pooling)
    else:
        head = Head(split, cut, INPUTS if store is None else (cut,), {})
    loaded = LoadedRun(info, named, task_of("similarity", named.modality), list(network.loaded.labels), head)
    return Scorer({named.name: loaded}, store, settings)


def _reused(
    kept: Mapping[str, Any], run: str, store: str | None, model: NamedModel, settings: PredictSettings
) -> Reused:
    """The model whose rows a RUN reuses, and the store to take them from."""
    if settings.write_back:
        raise UsageError(
            f"--write-back: {run} reuses rows of {kept['provenance']['model']}, which `recycle precompute` adds to "
            "their store; leave the option out"
        )
    return reused_again(kept, run, store, model, prove=settings.parity_check)


def _store_for(named: Store | str, info: RunInfo) -> Store:
    path = named.path if isinstance(named, Store) else named
    if info.cut == STATE_0 and info.fingerprint is None:
        raise UsageError(f"this run was trained whole (cut 0), so {path} holds nothing for it; leave out --store")
    store = Store.open(named) if isinstance(named, str) else named
    if any(cut not in store.recipe.cuts for cut in info.cuts):
        made_with = store.provenance.get("model")
        of_model = "" if made_with is None else f" of {made_with}"
        held = ", ".join(store.recipe.cuts)
        raise MismatchError(
            f"{path} holds cut {held}{of_model}; this RUN needs cut {', '.join(info.cuts)} of {info.model}: fill a "
            f"store with `recycle precompute CORPUS STORE {_filling(info)}`, with the options about columns and images "
            "that the RUN's own store was filled with, or leave out --store"
        )
    return store


def _filling(info: RunInfo) -> str:
    """The options of a precompute whose store a RUN can read, but for those that no RUN keeps: about the files of the
    corpus, and the transform of images."""
    recipe = None if info.recipe is None else Recipe.from_json(info.recipe)
    task = task_of_run(info.task, None if recipe is None else recipe.modality, info.to_json())
    computed: dict[str, Any] = {} if recipe is None else {"precision": recipe.precision}
    held: dict[str, Any] = {} if recipe is None else {"dtype": recipe.dtype, "pool": recipe.poolings}
    model = ModelSettings(info.model, info.revision, info.max_length, **computed)
    return shlex.join(words_of(model, PrecomputeSettings(info.cuts, samples=task.samples_as(info.task), **held)))


def _tell_rounding(store: Store, info: RunInfo) -> None:
    """Say if the rows of a store are rounded in another way than those that a RUN was trained on."""
    if info.recipe is None:  # it was trained on the inputs, in the precision of the training
        trained, held = _kept_as("float32"), _kept_as(store.recipe.dtype)
    else:
        recipe = Recipe.from_json(info.recipe)
        trained, held = (_kept_as(one.dtype, one.precision) for one in (recipe, store.recipe))
    if trained != held:
        say(f"{store.path} has {held}, and this RUN was trained on {trained}: scores may differ a little")


def _kept_as(dtype: str, precision: str = "float32") -> str:
    """How rows were computed and kept, in words."""
    return f"rows of {dtype}" + ("" if precision == "float32" else f", computed in {precision}")


def _load_run(run: str, info: RunInfo, named: NamedModel, store: Store | None, *, every_cut: bool) -> LoadedRun:
    """Load a RUN, whose head reads rows if there is a store.

    named      its checkpoint and the settings it computes with
    every_cut  cut it at all of the store's cuts, if its trunk has them all
    """
    task = task_of_run(info.task, named.modality, info.to_json())
    network = named.open(task.layer(()).kept)
    if info.apart:
        put_back(network.loaded, Path(expanded(run)))
    if store is None:
        split = network.split((info.cut,), "float32")
    else:
        split = _split_for(network, info.cut, store, every_cut=every_cut)
        expect(store, split.recipe.at(info.cut).computed_in(store.recipe.precision), info.model, info.cut)
        _tell_rounding(store, info)
    split.model.to(device_of(named.settings.device)).eval()
    return LoadedRun(
        info,
        named,
        task,
        list(network.loaded.labels),
        Head(split, info.cut, INPUTS if store is None else (info.cut,), {}),
    )


def _load_network(
    kept: Kept[N], run: str, info: RunInfo, computing: NamedModel, store: Store | None, *, every_cut: bool
) -> LoadedRun:
    """Load a small network and the model whose states it reads, cut there or, with `every_cut`, at all of the store's
    cuts."""
    folder = expanded(run)
    network, base = load_network(Path(folder), kept)
    named, split = base_again(
        folder, base, computing, store, cut=info.cut, every_cut=every_cut, pooled=isinstance(network, Probe)
    )
    if store is not None:
        for cut in info.cuts:
            expect(store, split.recipe.at(cut).computed_in(store.recipe.precision), info.model, cut)
        _tell_rounding(store, info)
    split.model.to(device_of(computing.settings.device)).eval()
    reads = INPUTS if store is None else info.cuts
    if isinstance(network, Probe):
        if store is not None:
            poolings_of(network.shape.poolings, split, ())
        head: Head = ProbeHead(split, info.cut, reads, network)
    else:
        head = LadderHead(split, info.cut, reads, network, Layout(tuple(map(tuple, base.row_shapes))))
    return LoadedRun(info, named, task_of_run(info.task, named.modality, info.to_json()), base.labels, head)


def _split_for(network: Network, cut: str, store: Store, *, every_cut: bool) -> SplitModel:
    """The model of a RUN, cut where its head begins; with `every_cut` at all of the store's cuts, if its layers up to
    the last of them are those that made the store. (Training has changed the layers behind its own cut.)"""
    if every_cut:
        split = network.stored(tuple(store.recipe.cuts), store.recipe.dtype)
        if split.recipe.cuts == store.recipe.cuts:
            return split
    return network.stored((cut,), store.recipe.dtype)
