"""Run the frozen trunk once over a corpus and keep its activations."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from recycle_cli import __version__
from recycle_cli.errors import DataError, GoneError, UsageError
from recycle_cli.intake import Intake
from recycle_cli.keys import KEY_BYTES, Bytes16, Sample, keys_of
from recycle_cli.models import Network, SplitModel, open_network, takes_images, views_of
from recycle_cli.reports import Bar, bar
from recycle_cli.runtime.devices import Fetching, autocast, batch_tokens_on, device_of, pinned_for, to_device
from recycle_cli.runtime.overlap import background, prefetch
from recycle_cli.settings import CorpusSettings, ModelSettings, PrecomputeSettings
from recycle_cli.store import Encoded, SegmentWriter, Store
from recycle_cli.trunk.stream import (
    Indices,
    TrunkBatch,
    Window,
    batches_of,
    check_lengths,
    prepared_ahead,
    rows_of,
    usable,
)

SEEN_LIMIT = 100_000
"""Samples on their way to the store, some 10 MB of them, at which those that have been sealed are forgotten."""


@dataclass(frozen=True)
class Precomputed:
    """What a precompute did. Sizes in bytes, times in seconds; `rows` and `bytes` count what was added.

    `trunk_seconds` is the time spent in the trunk's forward; on a GPU, which computes on, only that of starting it.
    """

    samples: int
    new_samples: int
    reused_samples: int
    failed_samples: int
    rows: int
    bytes: int
    seconds: float
    trunk_seconds: float
    samples_per_second: float
    rows_per_second: float
    store: str
    fingerprint: str
    cuts: list[str]
    dtype: str


@dataclass
class Tally:
    """Running counts of one precompute; `samples` are those read, whether new or not."""

    samples: int = 0
    new: int = 0
    trunk_seconds: float = 0.0
    started: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.perf_counter() - self.started


Rows = dict[str, Encoded]
"""A batch's rows at each cut, as stored."""


@dataclass(frozen=True)
class Keyed:
    """A trunk batch with the keys and digests (n, 16) of its samples."""

    batch: TrunkBatch
    keys: Bytes16
    digests: Bytes16


def precompute(
    corpus: CorpusSettings, store_path: str, model: ModelSettings, settings: PrecomputeSettings
) -> Precomputed:
    """Fill a store with what it lacks of the corpus; what it holds is not computed again."""
    device = device_of(model.device)
    images = takes_images(model)
    samples = Intake(corpus, images=images, views=views_of(settings.views, images=images))
    samples.tell_columns()
    network = open_network(model)
    halves = network.split(settings.cuts, settings.dtype)
    if "0" in halves.cuts:
        what = "a module's name" if images else f"1 to {halves.blocks}"
        raise UsageError(f"--cut 0 freezes nothing, so there is nothing to store; take {what}, or a share")
    recipe = halves.recipe.computed_in(model.precision)
    store = Store.create_or_open(store_path, recipe, provenance_of(model, network))
    halves.model.to(device)
    tally = Tally()
    with bar("precompute", samples.total) as progress:
        samples.count_ahead(progress)
        written = fill(store, samples, halves, model, settings, tally, progress)
    samples.tell()
    return report(store, tally, written, samples.failed)


def provenance_of(model: ModelSettings, network: Network) -> dict[str, str]:
    """Where a store's activations come from: for people, and for finding the model again; not in the fingerprint."""
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    name = str(Path(model.name).resolve()) if Path(model.name).is_dir() else model.name
    found: Mapping[str, str | None] = {"model": name, "revision": model.revision, **network.provenance}
    versions = {"recycle": __version__, "torch": torch.__version__}
    return {name: value for name, value in found.items() if value is not None} | versions | {"created": created}


def fill(
    store: Store,
    samples: Iterable[Sample],
    halves: SplitModel,
    model: ModelSettings,
    settings: PrecomputeSettings,
    tally: Tally,
    progress: Bar,
) -> SegmentWriter:
    """Run the trunk over the samples that the store lacks; reading, the trunk and writing overlap."""
    device = device_of(model.device)
    with store.writer(segment_bytes=settings.segment_bytes, codec=settings.codec, max_disk=settings.max_disk) as writer:
        fetching = Fetching(device)

        def rows(keyed: Keyed, activations: dict[str, torch.Tensor], mark: torch.cuda.Event | None) -> Rows:
            with fetching.after(mark):
                return {
                    cut: rows_of(found, keyed.batch.lengths, store.recipe.dtype) for cut, found in activations.items()
                }

        def write(done: tuple[Keyed, Rows | Callable[[], Rows]]) -> None:
            keyed, found = done
            writer.append(keyed.keys, keyed.digests, keyed.batch.lengths, found() if callable(found) else found)

        with background(write) as hand_over:
            for keyed in prefetch(missing(samples, store, halves, model, settings, tally, progress)):
                started = time.perf_counter()
                with autocast(device, store.recipe.precision):
                    activations = halves.trunk(to_device(keyed.batch.inputs, device))
                tally.trunk_seconds += time.perf_counter() - started
                for values in activations.values():
                    check_lengths(keyed.batch, values)
                # Every core of a CPU is the model's: what computes beside it costs more than it saves.
                fetch = partial(rows, keyed, activations, fetching.ready())
                hand_over((keyed, fetch() if device.type == "cpu" else fetch))
                progress.update(len(keyed.keys), note=_note(tally, writer))
    store.refresh()
    return writer


def missing(
    samples: Iterable[Sample],
    store: Store,
    halves: SplitModel,
    model: ModelSettings,
    settings: PrecomputeSettings,
    tally: Tally,
    progress: Bar,
) -> Iterator[Keyed]:
    """Trunk batches of the samples that neither the store nor an earlier batch of this run holds."""
    underway = Underway(store)
    unusable: set[bytes] = set()
    copies: dict[bytes, list[Sample]] = {}
    device = device_of(model.device)
    batch_tokens = batch_tokens_on(device, settings.batch_tokens)

    def reject(sample: Sample, error: DataError) -> None:
        if not isinstance(samples, Intake):
            raise error
        samples.reject(sample, error)
        tally.samples -= 1
        key = keys_of([sample])[0].tobytes()
        unusable.add(key)
        # What repeats an unusable sample is as unusable, and says so under its own name.
        usable(copies.pop(key, []), halves, reject)

    def fresh(window: Window) -> Indices:
        first = underway.first(window)
        copies.clear()
        for place in np.setdiff1d(np.flatnonzero(window.positions < 0), first).tolist():
            copies.setdefault(window.keys[place].tobytes(), []).append(window.samples[place])
        for key in unusable & copies.keys():
            usable(copies.pop(key), halves, reject)
        tally.samples += len(window.samples)
        progress.update(len(window.samples) - len(first))
        return first

    for ready in prepared_ahead(samples, halves, settings.window, underway.lookup, fresh, reject):
        for batch in batches_of(ready.places, ready.prepared, halves, batch_tokens):
            batch = replace(batch, inputs=pinned_for(batch.inputs, device))
            tally.new += len(batch.members)
            yield Keyed(batch, ready.window.keys[batch.members], ready.window.digests[batch.members])


class Underway:
    """What is on its way to the store, so that no content is computed twice in a run."""

    def __init__(self, store: Store) -> None:
        self.contents: set[bytes] = set()
        self._store, self._limit = store, SEEN_LIMIT

    def lookup(self, keys: Bytes16, digests: Bytes16) -> Indices:
        """As the store's, also while `gc` or `verify --repair` takes segments away beside us."""
        while True:
            try:
                return self._store.lookup(keys, digests)
            except GoneError:
                self._store.refresh()  # positions from before may be others now: nobody here keeps any

    def first(self, window: Window) -> Indices:
        """Places of the samples that are neither in the store nor on their way, each content once; now they are."""
        fresh = []
        for place in np.flatnonzero(window.positions < 0).tolist():
            content = window.keys[place].tobytes() + window.digests[place].tobytes()
            if content not in self.contents:
                self.contents.add(content)
                fresh.append(place)
        if len(self.contents) > self._limit:
            self._forget_sealed()
        return np.array(fresh, dtype=np.int64)

    def _forget_sealed(self) -> None:
        """Drop what the store has sealed meanwhile, so that memory does not grow with the corpus."""
        self._store.refresh()
        contents = np.frombuffer(b"".join(self.contents), dtype=np.uint8).reshape(-1, 2 * KEY_BYTES)
        absent = self.lookup(contents[:, :KEY_BYTES], contents[:, KEY_BYTES:]) < 0
        self.contents.intersection_update(content.tobytes() for content in contents[absent])
        self._limit = max(SEEN_LIMIT, 2 * len(self.contents))


def _note(tally: Tally, writer: SegmentWriter) -> str:
    reused = (tally.samples - tally.new) / max(1, tally.samples)
    return f"{writer.rows / tally.seconds:,.0f} rows/s, {reused:.0%} hits"


def report(store: Store, tally: Tally, writer: SegmentWriter, failed: int) -> Precomputed:
    """The counts of a finished precompute, with its rates."""
    seconds = tally.seconds
    return Precomputed(
        samples=tally.samples + failed,
        new_samples=writer.samples,
        reused_samples=tally.samples - writer.samples,
        failed_samples=failed,
        rows=writer.rows,
        bytes=writer.bytes,
        seconds=seconds,
        trunk_seconds=tally.trunk_seconds,
        samples_per_second=tally.samples / seconds,
        rows_per_second=writer.rows / seconds,
        store=store.path,
        fingerprint=store.fingerprint,
        cuts=list(store.recipe.cuts),
        dtype=store.recipe.dtype,
    )
