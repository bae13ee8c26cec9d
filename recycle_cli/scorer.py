"""RUNs in memory: one trunk, one store, a head each. Hits go straight to the heads, misses through the trunk first."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from recycle_cli.batches import INPUTS, Indices, StoredRows, Tensors, joined, widened
from recycle_cli.disk import expanded
from recycle_cli.errors import DamageError, DataError, MismatchError, UsageError
from recycle_cli.keys import Sample, keys_of
from recycle_cli.models import BASE, STATE_0, NamedModel, Network, Preprocessor, SplitModel
from recycle_cli.models.adapters import put_back
from recycle_cli.models.ladder import Layout
from recycle_cli.models.outputs import Outputs
from recycle_cli.models.probe import Probe
from recycle_cli.models.state_network import LADDER, PROBE, Kept, N, load_network
from recycle_cli.runs import RunInfo, check_files, read_info
from recycle_cli.runtime.devices import autocast, batch_tokens_on, device_holding, device_of, pinned_for, to_device
from recycle_cli.settings import ModelSettings, PredictSettings
from recycle_cli.store import SegmentWriter, Store
from recycle_cli.tasks import Task, task_of_run
from recycle_cli.training import LadderHead, ProbeHead, base_again, poolings_of
from recycle_cli.training.head import Head
from recycle_cli.trunk import (
    PROBES,
    Lookup,
    Reused,
    TrunkBatch,
    Underway,
    Window,
    by_token_budget,
    check_parity,
    expect,
    restored,
    reused_again,
    rows_of,
)

Rows = dict[str, Tensors]
"""The stored rows of a batch at each cut that a head reads."""

Answers = dict[str, Outputs]
"""The outputs of each RUN, by its name."""


@dataclass(frozen=True)
class LoadedRun:
    """A RUN in memory. `model`: its checkpoint and the settings it computes with; `names`: its classes."""

    info: RunInfo
    model: NamedModel
    task: Task
    names: list[str]
    head: Head

    @property
    def cuts(self) -> tuple[str, ...]:
        """The cuts whose rows its head reads."""
        return self.info.cuts

    def outputs(self, rows: Rows) -> Outputs:
        """Its outputs from the rows of a batch at each cut."""
        own = [rows[cut] for cut in self.cuts]
        return self.head(own[0] if len(own) == 1 else joined(self.cuts, own)).cpu()


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


class Scorer:
    """Scores samples with RUNs of one recipe, which share a trunk and a store.

    runs     the RUNs by name; the trunk is that of the first
    store    where hits come from; None computes everything
    """

    def __init__(self, runs: Mapping[str, LoadedRun], store: Store | None, settings: PredictSettings) -> None:
        self.runs, self.store, self.settings = dict(runs), store, settings
        self._unproved = settings.parity_check
        # A store of its own: seeing what was sealed changes positions, which are in use here.
        self._underway = Underway(Store.open(store.path)) if store is not None and settings.write_back else None

    @property
    def first(self) -> LoadedRun:
        """The RUN whose trunk all heads share."""
        return next(iter(self.runs.values()))

    @property
    def split(self) -> SplitModel:
        """The model whose trunk all heads share."""
        return self.first.head.split

    @property
    def precision(self) -> str:
        """The precision that the heads compute in."""
        return self.first.model.settings.precision

    @property
    def preprocessor(self) -> Preprocessor:
        """The preprocessor of the shared trunk."""
        return self.split.preprocessor

    @property
    def device(self) -> torch.device:
        """The device that the model is on."""
        return device_holding(self.split.model)

    @property
    def batch_tokens(self) -> int:
        """Rows a batch at most."""
        return batch_tokens_on(self.device, self.settings.batch_tokens)

    @cached_property
    def cuts(self) -> list[str]:
        """The cuts that the heads read."""
        return list(dict.fromkeys(cut for run in self.runs.values() for cut in run.cuts))

    @cached_property
    def trunk(self) -> SplitModel:
        """The model whose trunk computes misses: the RUN's own, or the store's if misses are written back at cuts
        behind the RUN's, whose layers training has changed."""
        assert self.store is not None
        wanted = tuple(self.store.recipe.cuts) if self._underway is not None else tuple(self.cuts)
        if all(cut in self.split.cuts for cut in wanted):
            return self.split
        base = self.first.model.found_again(self.store.provenance, self.store.recipe, named=False)
        # The first batch of misses asks for it, but no model can be cut in inference mode, nor in mixed precision.
        with torch.inference_mode(False), autocast(self.device, "float32"):
            split = base.open().stored(wanted, self.store.recipe.dtype, self.store.recipe.poolings)
        for cut in wanted:
            recipe = split.recipe.at(cut).computed_in(self.store.recipe.precision)
            expect(self.store, recipe, base.name, cut)
        split.model.to(self.device).eval()
        return split

    @property
    def lookup(self) -> Lookup | None:
        """The look-up of the store that hits come from, which may be that of rows that the RUN reuses; None without."""
        store = self.store
        if store is None and self.first.model.reused is not None:
            store = cast(Reused, self.first.model.reused).store
        return None if store is None else store.lookup

    def ready(self, window: Window) -> Indices:
        """The places of the samples whose rows go straight to the heads; none for a RUN that reuses rows."""
        return np.flatnonzero((window.positions >= 0) & (self.store is not None))

    def to_prepare(self, window: Window) -> Indices:
        """The places of all others."""
        return np.flatnonzero((window.positions < 0) | (self.store is None))

    def find(self, samples: Sequence[Sample]) -> Window:
        """Look samples up in the store by their content; nothing is tokenized."""
        keys, digests = keys_of(samples)
        absent = np.full(len(samples), -1, dtype=np.int64)
        return Window(samples, keys, digests, absent if self.lookup is None else self.lookup(keys, digests))

    def hits(self, window: Window) -> Iterator[tuple[Indices, Rows]]:
        """The rows of the samples that the store holds, in batches of like lengths, with their places in the window.

        The rows of a few of the first hits are compared with the trunk's. Raises MismatchError if they differ.
        """
        held = self.ready(window)
        if self.store is None or not len(held):
            return
        if self._unproved:
            few = held[np.unique(np.linspace(0, len(held) - 1, PROBES, dtype=np.int64))]
            for cuts, run in {run.cuts: run for run in self.runs.values()}.items():
                check_parity(self.store, run.head.split, cuts, [window.samples[place] for place in few.tolist()])
            self._unproved = False
        stored = {cut: StoredRows.of(self.store, cut, window.positions[held]) for cut in self.cuts}
        lengths = stored[self.cuts[0]].lengths * self.preprocessor.row_cost
        for members in by_token_budget(lengths, self.batch_tokens):
            yield held[members], {cut: pinned_for(rows.load(members), self.device) for cut, rows in stored.items()}

    def from_rows(self, rows: Rows, window: Window, members: Indices) -> Answers:
        """Outputs from stored rows. Raises DamageError if an output is NaN or infinite."""
        with torch.inference_mode(), autocast(self.device, self.precision):
            on_device = {cut: to_device(batch, self.device) for cut, batch in rows.items()}
            ready = {cut: {"rows": widened(one), "lengths": one["lengths"]} for cut, one in on_device.items()}
            answers = {name: run.outputs(ready) for name, run in self.runs.items()}
        if place := _not_a_number(answers):
            assert self.store is not None
            raise DamageError(
                f"{self.store.path}: the stored rows of record {window.samples[members[place[0]]].id} give no number "
                "(NaN or infinite); run `recycle store verify --repair`"
            )
        return answers

    def from_inputs(self, batch: TrunkBatch, window: Window, writer: SegmentWriter | None = None) -> Answers:
        """Answers of misses, whose rows are rounded as the store would, and kept if there is a writer."""
        with torch.inference_mode(), autocast(self.device, self.precision):
            if self.store is None:
                inputs = to_device(batch.inputs, self.device)
                answers = {name: run.head(inputs).cpu() for name, run in self.runs.items()}
            else:
                answers = self._through_trunk(batch, window, self.store, writer)
        if place := _not_a_number(answers):
            named = f"record {window.samples[batch.members[place[0]]].id}"
            raise DataError(f"{named}: the model gives no number for it (NaN or infinite); its weights may be damaged")
        return answers

    def _through_trunk(self, batch: TrunkBatch, window: Window, store: Store, writer: SegmentWriter | None) -> Answers:
        with autocast(self.device, store.recipe.precision):
            activations = self.trunk.trunk(to_device(batch.inputs, self.device))
        if writer is not None:
            self._keep(batch, window, activations, writer)
        ready: Rows = {}
        lengths = self.trunk.stored_lengths(batch.lengths)
        for cut in self.cuts:
            rows = rows_of(activations[cut], lengths, store.recipe.dtype)
            restored_rows = restored(rows, lengths, store.recipe.dtype).to(self.device)
            ready[cut] = {"rows": restored_rows, "lengths": torch.from_numpy(lengths).to(self.device)}
        return {name: run.outputs(ready) for name, run in self.runs.items()}

    def _keep(
        self, batch: TrunkBatch, window: Window, activations: Mapping[str, torch.Tensor], writer: SegmentWriter
    ) -> None:
        """Write the rows at all of the store's cuts, each content once, however often the data repeat it."""
        assert self._underway is not None
        assert self.store is not None
        keys, digests = window.keys[batch.members], window.digests[batch.members]
        samples = [window.samples[place] for place in batch.members.tolist()]
        first = self._underway.first(Window(samples, keys, digests, self._underway.lookup(keys, digests)))
        if len(first):
            dtype, lengths = self.store.recipe.dtype, self.trunk.stored_lengths(batch.lengths[first])
            rows = {cut: rows_of(activations[cut][first], lengths, dtype) for cut in self.store.recipe.cuts}
            writer.append(keys[first], digests[first], lengths, rows)


def open_scorer(run: str, store: str | None, model: ModelSettings, settings: PredictSettings) -> Scorer:
    """A RUN ready to score samples, under the name of its folder. Raises StoreError if it is no finished RUN."""
    info = read_info(run)
    check_files(run, info)
    folder = expanded(run)
    named = NamedModel(
        replace(model, name=str(Path(folder, BASE)) if info.apart else folder, max_length=info.max_length)
    )
    if info.reuse is not None:
        named = replace(named, reused=_reused(info.reuse, run, store, named, settings))
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


def _store_for(path: str, info: RunInfo) -> Store:
    if info.cut == STATE_0 and info.fingerprint is None:
        raise UsageError(f"this run was trained whole (cut 0), so {path} holds nothing for it; leave out --store")
    store = Store.open(path)
    if any(cut not in store.recipe.cuts for cut in info.cuts):
        made_with = store.provenance.get("model")
        of_model = "" if made_with is None else f" of {made_with}"
        held, needed = ", ".join(store.recipe.cuts), ", ".join(info.cuts)
        raise MismatchError(f"{path} holds the cut {held}{of_model}; this run needs {needed} of {info.model}")
    return store


def _not_a_number(answers: Answers) -> list[int]:
    """The places in the batch of the samples for which a RUN gives NaN or infinity."""
    wrong: set[int] = set()
    for outputs in answers.values():
        finite = torch.isfinite(outputs.values)
        if not finite.all():
            wrong |= {place for place, own in enumerate(outputs.each()) if not torch.isfinite(own).all()}
    return sorted(wrong)
