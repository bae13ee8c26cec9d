"""The trunk's pass over a corpus: what the store lacks is computed, sealed and counted."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from recycle_cli.errors import DataError
from recycle_cli.keys import Bytes16, Sample, keys_of
from recycle_cli.models import SplitModel
from recycle_cli.recipe import Recipe
from recycle_cli.reports import Bar
from recycle_cli.runtime.devices import Fetching, autocast, batch_tokens_on, device_holding, pinned_for, to_device
from recycle_cli.runtime.overlap import background, prefetch
from recycle_cli.settings import PrecomputeSettings
from recycle_cli.store import EncodedRows, SegmentWriter, Store
from recycle_cli.trunk.origins import origins_of
from recycle_cli.trunk.rows import check_lengths, rows_of
from recycle_cli.trunk.stream import Reject, TrunkBatch, Window, batches_of, prepared_ahead, usable
from recycle_cli.trunk.underway import Underway

ByCut = dict[str, torch.Tensor]
"""The trunk's output for a batch at each cut, padded."""

Rows = dict[str, EncodedRows]
"""A batch's rows at each cut, as stored."""


@dataclass
class Tally:
    """Running counts of one pass: the `samples` looked up, and how many of them need not be computed (`reused`)."""

    samples: int = 0
    reused: int = 0
    trunk_seconds: float = 0.0
    started: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.perf_counter() - self.started

    @property
    def reused_share(self) -> float:
        """The share of the samples that need not be computed again."""
        return self.reused / max(1, self.samples)


@dataclass(frozen=True)
class Keyed:
    """A trunk batch with the keys and digests (n, 16) of its samples."""

    batch: TrunkBatch
    keys: Bytes16
    digests: Bytes16


@dataclass(frozen=True)
class Filled:
    """A finished pass: its counts, and the writer with what it has sealed."""

    tally: Tally
    writer: SegmentWriter


def fill(
    store: Store,
    samples: Iterable[Sample],
    split: SplitModel,
    settings: PrecomputeSettings,
    progress: Bar,
    reject: Reject | None = None,
) -> Filled:
    """Run the trunk over the samples that the store lacks; reading, the trunk and writing overlap.

    `reject` is called for samples that cannot be prepared; None raises their error.
    """
    lacking, fetching = Lacking(store, split, settings, progress, reject), Fetching(device_holding(split.model))
    tally = lacking.tally
    with store.writer(
        segment_bytes=settings.segment_bytes,
        codec=settings.codec,
        max_disk=settings.max_disk,
        origins=origins_of(settings.samples, settings.views),
    ) as writer:
        seal_early = _sealing_early(writer, settings.first_seal)

        def write(done: tuple[Keyed, Callable[[], Rows]]) -> None:
            keyed, rows = done
            writer.append(keyed.keys, keyed.digests, split.stored_lengths(keyed.batch.lengths), rows())
            seal_early()

        with background(write) as hand_over:
            for keyed in prefetch(lacking.batches(samples)):
                hand_over((keyed, _computed(split, keyed.batch, store.recipe, fetching, tally)))
                progress.update(len(keyed.keys), note=_note(tally, writer))
    store.refresh()
    return Filled(tally, writer)


def _sealing_early(writer: SegmentWriter, first: float | None) -> Callable[[], None]:
    """A function to call after each batch, which seals what was written once `first` seconds have passed, and then
    whenever half as much time has passed since the last seal as before it. If the process is killed, that costs at most
    a third of its work and a batch, or `first` seconds, for a few segments more. With None it leaves sealing to the
    writer."""
    began = sealed = time.monotonic()

    def seal_if_due() -> None:
        nonlocal sealed
        if first is not None and time.monotonic() - sealed >= max(first, (sealed - began) / 2):
            writer.seal()
            sealed = time.monotonic()

    return seal_if_due


def _computed(
    split: SplitModel, batch: TrunkBatch, recipe: Recipe, fetching: Fetching, tally: Tally
) -> Callable[[], Rows]:
    """Run the trunk on a batch. Returns a function that gives the rows, for another thread to call."""
    started = time.perf_counter()
    activations = _activations(split, batch, recipe.precision)
    tally.trunk_seconds += time.perf_counter() - started
    mark = fetching.ready()

    def rows() -> Rows:
        with fetching.after(mark):
            lengths = split.stored_lengths(batch.lengths)
            return {cut: rows_of(found, lengths, recipe.dtype) for cut, found in activations.items()}

    # The model uses every core of a CPU: rounding rows beside it costs more than it saves.
    return partial(dict, rows()) if device_holding(split.model).type == "cpu" else rows


def _activations(split: SplitModel, batch: TrunkBatch, precision: str) -> ByCut:
    """The trunk's output for a batch. Raises DataError if it is shorter than the samples."""
    device = device_holding(split.model)
    with autocast(device, precision):
        found = split.trunk(to_device(batch.inputs, device))
    for values in found.values():
        check_lengths(split.stored_lengths(batch.lengths), values)
    return found


def _note(tally: Tally, writer: SegmentWriter) -> str:
    return f"{writer.rows / tally.seconds:,.0f} rows/s, {tally.reused_share:.0%} hits"


class Lacking:
    """Finds the samples that neither the store nor an earlier batch of this pass holds, and batches them."""

    def __init__(
        self, store: Store, split: SplitModel, settings: PrecomputeSettings, progress: Bar, reject: Reject | None = None
    ) -> None:
        self.tally = Tally()
        self._preprocessor, self._settings = split.preprocessor, settings
        self._progress, self._reject = progress, reject
        self._device = device_holding(split.model)
        self._underway = Underway(store)
        self._unusable: set[bytes] = set()
        self._copies: dict[bytes, list[Sample]] = {}

    def batches(self, samples: Iterable[Sample]) -> Iterator[Keyed]:
        """Trunk batches of the samples to be computed."""
        ahead = prepared_ahead(
            samples,
            self._preprocessor,
            self._settings.window,
            self._underway.lookup,
            self._fresh,
            self._refused,
            self._settings.first_window,
        )
        batch_tokens = batch_tokens_on(self._device, self._settings.batch_tokens)
        for ready in ahead:
            for batch in batches_of(ready.places, ready.prepared, self._preprocessor, batch_tokens):
                batch = replace(batch, inputs=pinned_for(batch.inputs, self._device))
                yield Keyed(batch, ready.window.keys[batch.members], ready.window.digests[batch.members])

    def _fresh(self, window: Window) -> npt.NDArray[np.int64]:
        """Places of the samples to compute: the first with each content that is new. Copies of a sample that cannot be
        prepared are refused as well, each under its own name."""
        first = self._underway.first(window)
        self._copies.clear()
        for place in np.setdiff1d(np.flatnonzero(window.positions < 0), first).tolist():
            self._copies.setdefault(window.keys[place].tobytes(), []).append(window.samples[place])
        for key in self._unusable & self._copies.keys():
            usable(self._copies.pop(key), self._preprocessor, self._refused)
        reused = len(window.samples) - len(first)
        self.tally.samples += len(window.samples)
        self.tally.reused += reused
        self._progress.update(reused)
        return first

    def _refused(self, sample: Sample, error: DataError) -> None:
        """Reject a sample that cannot be prepared, and each of its copies in the window."""
        if self._reject is None:
            raise error
        self._reject(sample, error)
        self.tally.samples -= 1
        key = keys_of([sample])[0].tobytes()
        self._unusable.add(key)
        usable(self._copies.pop(key, []), self._preprocessor, self._refused)
