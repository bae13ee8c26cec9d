"""RUNs in memory: one trunk, one store, a head each. Hits go straight to the heads, misses through the trunk first."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from copy import copy
from functools import cached_property
from typing import Protocol, cast

import numpy as np
import torch

from recycle_cli.batches import Indices, StoredRows, widened
from recycle_cli.errors import DamageError, DataError
from recycle_cli.keys import Bytes16, Sample, contents_of, keys_of
from recycle_cli.models import Preprocessor, SplitModel
from recycle_cli.models.outputs import Outputs
from recycle_cli.runtime.devices import autocast, batch_tokens_on, device_holding, pinned_for, to_device
from recycle_cli.scorer.loaded_run import LoadedRun, Rows
from recycle_cli.settings import PredictSettings
from recycle_cli.store import EncodedRows, Store
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
    rows_of,
)

Answers = dict[str, Outputs]
"""The outputs of each RUN, by its name."""

Names = Collection[str] | None
"""Names of some RUNs; None for all."""


class RowWriter(Protocol):
    """Takes the rows of misses for the store, as a `SegmentWriter` does."""

    def append(self, keys: Bytes16, digests: Bytes16, lengths: Indices, rows: Mapping[str, EncodedRows]) -> None:
        """Samples: keys and digests (n, 16), lengths (n,), and at each cut their rows one after another."""


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

    def over(self, store: Store) -> "Scorer":
        """The same over its store as that is now, opened anew."""
        other = copy(self)
        other.store = store
        return other

    def renewed(self, settled: Collection[bytes]) -> None:
        """Take notice of segments that came or went while misses are written back. `settled`: contents that have been
        sealed, or will not be."""
        if self._underway is not None and self.store is not None:
            self._underway.settle(settled, self.store.as_it_is_now())

    def called(self, name: str) -> "Scorer":
        """The same with another name for its only RUN."""
        (run,) = self.runs.values()
        return Scorer({name: run}, self.store, self.settings)

    def joined(self, others: "Sequence[Scorer]") -> "Scorer":
        """The RUNs of this scorer and of others over the same store."""
        runs = {name: run for one in (self, *others) for name, run in one.runs.items()}
        return Scorer(runs, self.store, self.settings)

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

    def from_rows(self, rows: Rows, window: Window, members: Indices, wanted: Names = None) -> Answers:
        """Outputs from stored rows, of the `wanted` RUNs. Raises DamageError if an output is NaN or infinite."""
        with torch.inference_mode(), autocast(self.device, self.precision):
            on_device = {cut: to_device(batch, self.device) for cut, batch in rows.items()}
            ready = {cut: {"rows": widened(one), "lengths": one["lengths"]} for cut, one in on_device.items()}
            answers = {name: run.outputs(ready) for name, run in self._wanted(wanted)}
        if place := _not_a_number(answers):
            assert self.store is not None
            raise DamageError(
                f"{self.store.path}: the stored rows of record {window.samples[members[place[0]]].id} give no number "
                "(NaN or infinite); run `recycle store verify --repair`"
            )
        return answers

    def from_inputs(
        self, batch: TrunkBatch, window: Window, writer: "RowWriter | None" = None, wanted: Names = None
    ) -> Answers:
        """Outputs of misses, of the `wanted` RUNs. Their rows are rounded as the store would, and kept if there is a
        writer. Raises DataError if an output is NaN or infinite."""
        with torch.inference_mode(), autocast(self.device, self.precision):
            if self.store is None:
                answers = self._whole(batch, wanted)
            else:
                ready = self._through_trunk(batch, window, self.store, writer)
                answers = {name: run.outputs(ready) for name, run in self._wanted(wanted)}
        if place := _not_a_number(answers):
            named = f"record {window.samples[batch.members[place[0]]].id}"
            raise DataError(f"{named}: the model gives no number for it (NaN or infinite); its weights may be damaged")
        return answers

    def _wanted(self, names: Names) -> list[tuple[str, LoadedRun]]:
        return [(name, run) for name, run in self.runs.items() if names is None or name in names]

    def _whole(self, batch: TrunkBatch, wanted: Names) -> Answers:
        """Outputs without a store: of one RUN by its whole model, of several with one trunk by that and their heads."""
        inputs, runs = to_device(batch.inputs, self.device), self._wanted(wanted)
        if len(runs) < 2 or any(run.trunk is None or run.trunk != runs[0][1].trunk for _, run in runs):
            return {name: run.head(inputs).cpu() for name, run in runs}
        (cut,) = runs[0][1].cuts
        rows = runs[0][1].head.split.trunk_to(cut)(inputs)
        lengths = torch.from_numpy(batch.lengths).to(self.device)
        return {name: run.behind(rows, lengths) for name, run in runs}

    def _through_trunk(self, batch: TrunkBatch, window: Window, store: Store, writer: "RowWriter | None") -> Rows:
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
        return ready

    def _keep(
        self, batch: TrunkBatch, window: Window, activations: Mapping[str, torch.Tensor], writer: "RowWriter"
    ) -> None:
        """Write the rows at all of the store's cuts, each content once, however often the data repeat it."""
        assert self._underway is not None
        assert self.store is not None
        keys, digests = window.keys[batch.members], window.digests[batch.members]
        samples = [window.samples[place] for place in batch.members.tolist()]
        first = self._underway.lacking(samples, keys, digests)
        if not len(first):
            return
        dtype, lengths = self.store.recipe.dtype, self.trunk.stored_lengths(batch.lengths[first])
        try:
            rows = {cut: rows_of(activations[cut][first], lengths, dtype) for cut in self.store.recipe.cuts}
            writer.append(keys[first], digests[first], lengths, rows)
        except Exception:  # whatever it is, it may be of one sample, and the others are tried again
            self._underway.settle(contents_of(keys[first], digests[first]))
            raise


def _not_a_number(answers: Answers) -> list[int]:
    """The places in the batch of the samples for which a RUN gives NaN or infinity."""
    wrong: set[int] = set()
    for outputs in answers.values():
        finite = torch.isfinite(outputs.values)
        if not finite.all():
            wrong |= {place for place, own in enumerate(outputs.each()) if not torch.isfinite(own).all()}
    return sorted(wrong)
