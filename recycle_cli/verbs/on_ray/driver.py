"""`recycle precompute --engine ray`: what is read and written is checked here, then workers get shards."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path

from recycle_cli import __version__
from recycle_cli.corpus import Corpus, is_pipe, paths_of
from recycle_cli.disk import expanded
from recycle_cli.errors import Interrupted, UsageError
from recycle_cli.models import NamedModel
from recycle_cli.reports import Bar, bar, counted, say
from recycle_cli.runtime.signals import Deferred, deferred_signals
from recycle_cli.settings import CorpusSettings, EngineSettings, ModelSettings, PrecomputeSettings, Shard
from recycle_cli.store import Store
from recycle_cli.tasks import read_samples
from recycle_cli.verbs.on_ray.cluster import Division, divided, joined, nodes_of
from recycle_cli.verbs.on_ray.handing_out import HandingOut
from recycle_cli.verbs.on_ray.messages import Work
from recycle_cli.verbs.precompute import Precomputed, check_written, interrupted, open_filling

MOST_A_WORKER, LEAST_A_WORKER = 8, 2
"""Shards a worker. With the most, a worker that is slow holds up the others by an eighth of its time at most; the least
are for a corpus of few windows, whose texts are sorted by length the worse the smaller its shards are, and for files
that have to be read from the start for each shard."""

FEW_WINDOWS = 8
"""With fewer a shard, the first one is a whole one too: a small one starts the trunk sooner, but is sorted worse."""

FIRST_SEAL = 2.0
"""Seconds after which a worker first seals what it has of a shard. A shard may be smaller than a segment, and if its
worker is lost, most of what was done is to be found in the store."""

WINDOW_BYTES = 4 * 2**20
"""About the bytes of a file of texts that fill a window (16384 texts of 250 bytes)."""


@dataclass(frozen=True)
class PrecomputedOnRay(Precomputed):
    """What a precompute on Ray did. `new_samples`, `rows` and `bytes` are what the store has more than before, and
    `trunk_seconds` is the sum over all workers.

    workers        that were to compute at once, with `threads` each
    nodes          machines on which they did
    shards         of the corpus, and how often some of them were handed out again, by their names
    start_seconds  until the first shard could be handed out
    """

    workers: int
    threads: int
    nodes: int
    shards: int
    retried: dict[str, int]
    start_seconds: float


def precompute_on_ray(
    corpus: CorpusSettings,
    store_path: str,
    model: ModelSettings,
    settings: PrecomputeSettings,
    engine: EngineSettings,
) -> PrecomputedOnRay:
    """Fill a store with what it lacks of the corpus, by workers on a Ray cluster.

    Raises UsageError for what cannot be divided, and WorkerError if shards had to be given up.
    """
    _check_divisible(corpus, store_path, model.device, settings)
    check_written(corpus, store_path, model.name)
    began, named = time.monotonic(), NamedModel(model)
    records = read_samples(corpus, settings.samples, named)
    records.tell_columns()
    store = open_filling(store_path, named, settings).store
    held = _Held.of(store)
    with joined(engine) as ray:
        division = divided([node["Resources"] for node in nodes_of(ray)], engine.workers, model.device)
        windows = windows_of(records, settings.window)
        shards = shards_of(records, windows, division.workers)
        first = settings.window if windows < len(shards) * FEW_WINDOWS else None
        told = replace(settings, first_window=first, first_seal=FIRST_SEAL)
        handing_out = HandingOut(ray, division, _work(corpus, store, named, told, division.cpus), shards)
        _hand_out(handing_out, records, store.path, held.samples)
    _tell_failures(records, handing_out)
    store.refresh()
    _tell_copies(store)
    return _report(store, held, handing_out, division, began)


def _work(corpus: CorpusSettings, store: Store, named: NamedModel, settings: PrecomputeSettings, threads: int) -> Work:
    """What workers are told, with paths that mean the same in every folder."""
    return Work(
        replace(corpus, source=tuple(map(_source_everywhere, corpus.source)), failures=None),
        _store_everywhere(store.path),
        _model_everywhere(named),
        settings,
        __version__,
        store.recipe.to_json(),
        store.provenance,
        threads,
    )


def _hand_out(handing_out: HandingOut, records: Corpus, store_path: str, held: int) -> None:
    """Hand out all shards under a progress bar. Raises Interrupted, with a message, once the workers have sealed what
    they had computed. `held`: the samples that the store had before."""
    with deferred_signals() as signals:
        try:
            with bar("precompute", records.total) as drawn:
                records.count_ahead(drawn)
                handing_out.run(_moving(drawn, signals))
        except (Interrupted, SystemError):  # a second signal, which Ray's compiled code makes a SystemError
            if not signals.asked:
                raise
            raise Interrupted(interrupted(store_path, held)) from None


def shards_of(records: Corpus, windows: float, workers: int) -> list[Shard]:
    """The shards of a corpus of about so many windows: more than workers, but no more than are of use."""
    each = round(min(max(windows / workers, LEAST_A_WORKER), MOST_A_WORKER))
    while each > LEAST_A_WORKER and not records.divides(each * workers):
        each -= 1
    return [Shard(index, each * workers) for index in range(each * workers)]


def windows_of(records: Corpus, window: int) -> float:
    """About how many windows the corpus fills, by its records or the bytes of its files; infinity if neither tells."""
    if records.total is not None:
        return records.total / window
    files = paths_of(records.settings.source)
    if not files or any(file.whole for file in files):
        return float("inf")
    return sum(Path(file.path).stat().st_size for file in files) / WINDOW_BYTES


def _check_divisible(corpus: CorpusSettings, store_path: str, device: str, settings: PrecomputeSettings) -> None:
    """Raise UsageError for what workers cannot do together."""
    if settings.shard is not None:
        raise UsageError(f"--shard {settings.shard}: --engine ray hands out shards of its own; leave one of both out")
    if corpus.limit is not None:
        raise UsageError(f"--limit {corpus.limit} counts from the first record on, which one worker has; leave it out")
    if piped := next(filter(is_pipe, corpus.source), None):
        raise UsageError(f"{piped}: a pipe ends here, where no worker can read it; give --engine ray a file")
    if store_path.startswith("memory://"):
        raise UsageError(f"{store_path}: lies in one process; give --engine ray a folder or a bucket")
    if device.startswith("cuda:"):
        raise UsageError(f"--device {device}: Ray gives each worker a GPU; take --device cuda")


def _source_everywhere(source: str) -> str:
    """A source of records as a worker in another folder finds it."""
    return source if source.startswith("hub:") else str(Path(expanded(source)).absolute())


def _store_everywhere(path: str) -> str:
    return path if "://" in path else str(Path(expanded(path)).absolute())


def _model_everywhere(named: NamedModel) -> ModelSettings:
    model = named.settings
    weights = model.images.weights
    if weights is not None:
        model = replace(model, images=replace(model.images, weights=_if_there(weights)))
    return replace(model, name=_if_there(model.name))


def _if_there(name: str) -> str:
    """The absolute path of a file or folder; a name that is none stays."""
    path = Path(expanded(name))
    return str(path.absolute()) if path.exists() else name


def _moving(drawn: Bar, signals: Deferred) -> Callable[[int, str], None]:
    """A function of the records done and a note, which moves the bar, but not back if a shard is begun again. It raises
    Interrupted if a signal has come."""
    furthest = 0

    def move(done: int, note: str) -> None:
        nonlocal furthest
        signals.stop_here()
        drawn.update(max(0, done - furthest), note=note)
        furthest = max(furthest, done)

    return move


def _tell_failures(records: Corpus, handing_out: HandingOut) -> None:
    """Write one list of the records that workers passed over, in the order of the corpus. Raises DataError if no record
    could be used."""
    done = [handing_out.done[shard] for shard in sorted(handing_out.done, key=lambda shard: shard.index)]
    for failure in chain.from_iterable(one.failures for one in done):
        records.failures.note(failure)
    records.failures.tell()
    if not any(one.report.samples > one.report.failed_samples for one in done):
        records.refuse_unused()


def _tell_copies(store: Store) -> None:
    if copies := store.copies:
        say(
            f"{store.path}: {counted(copies, 'sample')} stored twice, since two writers computed the same content at "
            "the same time; a read gives one of the two, and `recycle store gc` removes the other from a folder"
        )


@dataclass(frozen=True)
class _Held:
    """What a store holds at one time."""

    samples: int
    rows: int
    bytes: int

    @classmethod
    def of(cls, store: Store) -> "_Held":
        return cls(len(store), store.rows, store.bytes)


def _report(store: Store, held: _Held, handing_out: HandingOut, division: Division, began: float) -> PrecomputedOnRay:
    reports = [done.report for done in handing_out.done.values()]
    failed, used = sum(one.failed_samples for one in reports), sum(one.samples - one.failed_samples for one in reports)
    now, seconds = _Held.of(store), time.monotonic() - began
    new, rows = now.samples - held.samples, now.rows - held.rows
    sums = {
        "samples": used + failed,
        "new_samples": new,
        "reused_samples": used - new,
        "failed_samples": failed,
        "rows": rows,
        "bytes": now.bytes - held.bytes,
        "seconds": seconds,
        "trunk_seconds": sum(one.trunk_seconds for one in reports),
        "samples_per_second": used / seconds,
        "rows_per_second": rows / seconds,
        "store": store.path,
        "shard": None,
    }
    return PrecomputedOnRay(
        **(asdict(reports[0]) | sums),
        workers=division.workers,
        threads=division.cpus,
        nodes=len(handing_out.nodes),
        shards=len(reports),
        retried={str(shard): count for shard, count in handing_out.retried.items()},
        start_seconds=handing_out.first_ready - began,
    )
