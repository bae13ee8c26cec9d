"""Run the frozen trunk once over a corpus and keep its activations."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from recycle_cli import __version__
from recycle_cli.corpus import Corpus, Views, paths_of
from recycle_cli.disk import Read, files_of, keep_apart
from recycle_cli.errors import Interrupted, UsageError
from recycle_cli.models import NamedModel, Network, SplitModel, views_of
from recycle_cli.reports import Bar
from recycle_cli.runtime.devices import device_of
from recycle_cli.settings import CorpusSettings, ModelSettings, PrecomputeSettings, Shard
from recycle_cli.store import Store
from recycle_cli.tasks import read_samples
from recycle_cli.trunk import Filled, fill


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
    model: str
    fingerprint: str
    cuts: list[str]
    dtype: str
    shard: str | None
    pool: list[str]


@dataclass(frozen=True)
class Filling:
    """A trunk and the store that it fills, opened once for any number of corpora or shards."""

    store: Store
    split: SplitModel
    settings: PrecomputeSettings
    views: Views

    def fill(self, records: Corpus, progress: Bar) -> Precomputed:
        """Add what the store lacks of the records, and seal it, also if Interrupted is raised on the way."""
        samples = records.samples(self.views)
        filled = fill(self.store, samples, self.split, self.settings, progress, records.reject)
        return _report(self.store, filled, records.failed, records.settings.shard)


def precompute(
    corpus: CorpusSettings, store_path: str, model: ModelSettings, settings: PrecomputeSettings
) -> Precomputed:
    """Fill a store with what it lacks of the corpus, or of a shard of it; what it holds is not computed again."""
    if settings.shard is not None and corpus.limit is not None:
        raise UsageError(f"--limit {corpus.limit} counts from the first record on, which one shard has; leave it out")
    check_written(corpus, store_path, model.name)
    device, named = device_of(model.device), NamedModel(model)
    records = read_samples(replace(corpus, shard=settings.shard), settings.samples, named)
    records.tell_columns()
    filling = open_filling(store_path, named, settings)
    filling.split.model.to(device)
    held = len(filling.store)
    try:
        with records.progress("precompute", filling.views) as progress:
            report = filling.fill(records, progress)
    except Interrupted:
        raise Interrupted(interrupted(store_path, held)) from None
    records.failures.tell()
    return report


def check_written(corpus: CorpusSettings, store_path: str, model: str) -> None:
    """Raise UsageError if the store or the list of failures would be written over what is read, or into it."""
    read = [*paths_of(corpus.source), *map(Read, files_of(model))]
    written = {"STORE": store_path, "--failures": corpus.failures}
    keep_apart(read, {option: path for option, path in written.items() if path is not None})
    if corpus.failures is not None:
        keep_apart([Read(store_path, whole=True)], {"--failures": corpus.failures})


def open_filling(store_path: str, named: NamedModel, settings: PrecomputeSettings) -> Filling:
    """Load the model, cut it, and open its store or make it. The model stays on the CPU.

    Raises MismatchError if the store has another recipe.
    """
    views = views_of(settings.views, named.modality)
    network = named.open()
    split = network.stored(settings.cuts, settings.dtype, settings.pool)
    recipe = split.recipe.computed_in(named.settings.precision)
    return Filling(Store.create_or_open(store_path, recipe, provenance_of(named, network)), split, settings, views)


def interrupted(store_path: str, held: int) -> str:
    """What the store has after an interruption, and how to go on. `held`: the samples that it had before."""
    new = len(Store.open(store_path)) - held
    return f"interrupted; {store_path} has {new:,} new samples, {held + new:,} in all: the same command goes on"


def provenance_of(model: NamedModel, network: Network) -> dict[str, str]:
    """Where a store's activations come from: for people, and for finding the model again; not in the fingerprint."""
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    name = str(Path(model.name).resolve()) if Path(model.name).is_dir() else model.name
    found: Mapping[str, str | None] = {"model": name, "revision": model.settings.revision, **network.provenance}
    versions = {"recycle": __version__, "torch": torch.__version__}
    return {name: value for name, value in found.items() if value is not None} | versions | {"created": created}


def _report(store: Store, filled: Filled, failed: int, shard: Shard | None) -> Precomputed:
    """The counts of a finished precompute, with its rates."""
    tally, writer, seconds = filled.tally, filled.writer, filled.tally.seconds
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
        model=store.provenance.get("model", "unknown"),
        fingerprint=store.fingerprint,
        cuts=list(store.recipe.cuts),
        dtype=store.recipe.dtype,
        shard=None if shard is None else str(shard),
        pool=list(store.recipe.poolings),
    )
