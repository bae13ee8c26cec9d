"""Run the frozen trunk once over a corpus and keep its activations."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from recycle_cli import __version__
from recycle_cli.corpus import paths_of
from recycle_cli.disk import Read, files_of, keep_apart
from recycle_cli.errors import Interrupted, UsageError
from recycle_cli.models import NamedModel, Network, views_of
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


def precompute(
    corpus: CorpusSettings, store_path: str, model: ModelSettings, settings: PrecomputeSettings
) -> Precomputed:
    """Fill a store with what it lacks of the corpus, or of a shard of it; what it holds is not computed again."""
    if settings.shard is not None and corpus.limit is not None:
        raise UsageError(f"--limit {corpus.limit} counts from the first record on, which one shard has; leave it out")
    corpus = replace(corpus, shard=settings.shard)
    read = [*paths_of(corpus.source), *map(Read, files_of(model.name))]
    written = {"STORE": store_path, "--failures": corpus.failures}
    keep_apart(read, {option: path for option, path in written.items() if path is not None})
    if corpus.failures is not None:
        keep_apart([Read(store_path, whole=True)], {"--failures": corpus.failures})
    device, named = device_of(model.device), NamedModel(model)
    views = views_of(settings.views, named.modality)
    records = read_samples(corpus, settings.samples, named)
    records.tell_columns()
    network = named.open()
    split = network.stored(settings.cuts, settings.dtype, settings.pool)
    recipe = split.recipe.computed_in(model.precision)
    store = Store.create_or_open(store_path, recipe, provenance_of(named, network))
    split.model.to(device)
    held = len(store)
    try:
        with records.progress("precompute", views) as progress:
            filled = fill(store, records.samples(views), split, settings, progress, records.reject)
    except Interrupted:
        new = len(Store.open(store_path)) - held
        raise Interrupted(
            f"interrupted; {store_path} has {new:,} new samples, {held + new:,} in all: the same command goes on"
        ) from None
    records.failures.tell()
    return _report(store, filled, records.failed, settings.shard)


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
