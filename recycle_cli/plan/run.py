"""`recycle plan`: count the corpus, try the cuts on a sample of it, and forecast the whole."""

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from recycle_cli.batches import Indices
from recycle_cli.bench.machine import machine, versions
from recycle_cli.bench.subject import Subject
from recycle_cli.corpus import Corpus
from recycle_cli.errors import UsageError
from recycle_cli.keys import Sample
from recycle_cli.models import NamedModel, asks_for_several, bytes_per_sample, views_of
from recycle_cli.plan.census import Census, Tokens, count, rows_of_images, tokens_of
from recycle_cli.plan.cost import Epoch, epoch_of, padded, pays_back_in
from recycle_cli.plan.states import HeadPlan, Scale, forecast, try_states
from recycle_cli.plan.trial import Trial, try_out
from recycle_cli.plan.verdict import verdict
from recycle_cli.recipe import DTYPES
from recycle_cli.reports import bar
from recycle_cli.runtime.memory import free_memory
from recycle_cli.runtime.signals import interrupted_as
from recycle_cli.settings import BenchSettings, CorpusSettings, ModelSettings, PlanSettings
from recycle_cli.settings.measuring import PLAN_IMAGES, PLAN_TEXTS
from recycle_cli.tasks import read_samples
from recycle_cli.trunk import by_token_budget, readable

SAMPLE_BYTES = 40
"""Bytes that a store keeps of a sample beside its rows: key, digest and offset."""


@dataclass(frozen=True)
class Plain:
    """The forecast of a cut without views."""

    bytes: dict[str, int]
    fill_seconds: float
    payback_epoch_vs_full: int | None
    payback_epoch_vs_frozen: int | None


@dataclass(frozen=True)
class CutPlan:
    """The forecast of one cut, views included. Times are in seconds, rates in bytes a second; None is unknown, or never
    for payback epochs. `without_views` is None if no views are asked for."""

    cut: str
    blocks: str
    bytes: dict[str, int]
    fill_seconds: float
    store_epoch_seconds: float
    frozen_epoch_seconds: float
    payback_epoch_vs_full: int | None
    payback_epoch_vs_frozen: int | None
    needed_bytes_per_second: float
    measured_bytes_per_second: float | None
    cache: bool
    verdict: str
    without_views: Plain | None = None


@dataclass(frozen=True)
class Plan:
    """Counts of a corpus, the time to train on it without a store, and the cuts. Error shares are at 95% confidence.

    `heads` are forecast if they are asked for: the cheapest cut's beside those that read several states.

    A record is one sample, or several if it is a long text whose windows a task asks for. For images, which are one row
    each, `tokens` and `max_length` are None, and the error is that of `unique_samples`.
    """

    records: int
    samples: int
    unique_samples: int
    tokens: int | None
    tokens_error_share: float
    max_length: int | None
    views: int
    dtype: str
    epochs: int
    full_epoch_seconds: float
    free_disk_bytes: int
    free_memory_bytes: int | None
    cuts: list[CutPlan]
    sample: dict[str, int]
    seconds: float
    machine: dict[str, Any]
    versions: dict[str, str]
    heads: list[HeadPlan] | None = None


def plan(corpus: CorpusSettings, model: ModelSettings, settings: PlanSettings, scratch: str | None = None) -> Plan:
    """Forecast a store at each cut from a sample of the corpus, whose stores are written in `scratch`.

    Labels are not needed. Raises UsageError if the corpus is too small to try.
    """
    started = time.perf_counter()
    named = NamedModel(model)
    views = views_of(settings.views, named.modality)
    size = _sample_size(settings, images=named.modality == "image")
    records = read_samples(corpus, settings.samples, named)
    records.tell_columns()
    with (
        TemporaryDirectory(prefix="recycle-plan-", dir=scratch) as folder,
        interrupted_as("interrupted; nothing is kept, as a plan shows its figures at the end"),
    ):
        free = shutil.disk_usage(folder).free
        subject = Subject(corpus, model, _bench(settings), Path(folder))
        if any(map(asks_for_several, settings.cuts)):
            settings = replace(settings, cuts=subject.all_cuts.cuts)
            subject.settings = _bench(settings)
        census, lengths, tokens = _drawn(records, subject, size)
        with bar("plan: trying") as progress:
            trial = try_out(subject, progress, views)
        forecast = Forecast(settings, subject, census, tokens, lengths, trial, free)
        report = _report(forecast, records.used, started)
        return replace(report, heads=forecast.heads(report.cuts)) if settings.states else report


def _sample_size(settings: PlanSettings, *, images: bool) -> int:
    """How many records the cuts are tried on. Raises UsageError for fewer than two batches."""
    size = settings.sample or (PLAN_IMAGES if images else PLAN_TEXTS)
    if size < 2 * settings.batch_size:
        raise UsageError(
            f"--sample {size}: too few records to try batches of {settings.batch_size} on, expected at least "
            f"{2 * settings.batch_size}; give more, or a smaller --batch-size"
        )
    return size


def _drawn(records: Corpus, subject: Subject, size: int) -> tuple[Census, Indices, Tokens]:
    """Count the corpus and make samples drawn from it the subject's own.

    Returns the counts, the tokens of each drawn sample (n,), and the tokens of all samples.
    """
    # A cut that the model does not have is refused here, before anything is counted.
    halves = subject.all_cuts
    with records.progress("plan: counting") as progress:
        # Drawn images are kept whole, so draw no more than are tried.
        census = count(records.samples(), progress.update, most=size if subject.images else None)
    _check_enough(census.unique, subject)
    if subject.images:
        places = readable(census.samples, halves.preprocessor, records.reject)
        _check_enough(len(places), subject)
        lengths, tokens = np.ones(len(places), dtype=np.int64), rows_of_images(census)
        subject.corpus = _images([census.samples[place] for place in places.tolist()], subject.scratch)
    else:
        lengths = halves.preprocessor.lengths(halves.prepare(census.samples))
        tokens = tokens_of(census, lengths, _longest(subject))
        subject.corpus = _texts(census.samples, lengths, size, subject.scratch)
    records.failures.tell()
    return census, lengths, tokens


def _check_enough(records: int, subject: Subject) -> None:
    if records < 2 * subject.settings.batch_size:
        raise UsageError(
            f"{', '.join(subject.corpus.source)}: {records} different records are too few to plan with batches of "
            f"{subject.settings.batch_size}; there is nothing to save, or give a smaller --batch-size"
        )


def _report(forecast: "Forecast", records: int, started: float) -> Plan:
    settings, subject, trial = forecast.settings, forecast.subject, forecast.trial
    return Plan(
        records=records,
        samples=forecast.census.records,
        unique_samples=forecast.census.unique,
        tokens=None if subject.images else round(forecast.tokens.total),
        tokens_error_share=1.96 * forecast.tokens.error_share,
        max_length=subject.all_cuts.recipe.max_length,
        views=settings.views.views,
        dtype=settings.dtype,
        epochs=settings.epochs,
        full_epoch_seconds=forecast.epoch_seconds("full"),
        free_disk_bytes=forecast.free,
        free_memory_bytes=free_memory(),
        cuts=[forecast.at(cut, blocks) for cut, blocks in zip(settings.cuts, trial.blocks, strict=True)],
        sample={"counted": len(forecast.lengths), "tried": len(subject.data)},
        seconds=time.perf_counter() - started,
        machine=machine(subject.device),
        versions=versions(),
    )


@dataclass(frozen=True)
class Forecast:
    """Everything that the figures of a cut are computed from. `lengths` are the tokens of the drawn samples (n,)."""

    settings: PlanSettings
    subject: Subject
    census: Census
    tokens: Tokens
    lengths: Indices
    trial: Trial
    free: int

    def at(self, cut: str, blocks: str) -> CutPlan:
        """Compute the figures of one cut."""
        plain = {dtype: self.bytes(blocks, dtype) for dtype in DTYPES}
        rows = 1 + self.settings.views.views
        sizes = {dtype: rows * size for dtype, size in plain.items()}
        fill, epoch = rows * self.fill_seconds(blocks), self.epoch_seconds(f"store {blocks}")
        # An epoch reads only one view of each sample.
        needed = plain[self.settings.dtype] * self.repeated / epoch
        rate = self.trial.cold_rates[blocks]
        # If the store does not fit in memory, every epoch reads it from the disk.
        memory = free_memory()
        if rate is not None and memory is not None and sizes[self.settings.dtype] > memory:
            epoch = max(epoch, epoch * needed / rate)
        full, frozen = self.epoch_seconds("full"), self.epoch_seconds(f"frozen {blocks}")
        pays = pays_back_in(fill, epoch, frozen)
        cache, words = verdict(pays, self.settings.epochs, sizes[self.settings.dtype], self.free)
        return CutPlan(
            cut=cut,
            blocks=blocks,
            bytes=sizes,
            fill_seconds=fill,
            store_epoch_seconds=epoch,
            frozen_epoch_seconds=frozen,
            payback_epoch_vs_full=pays_back_in(fill, epoch, full),
            payback_epoch_vs_frozen=pays,
            needed_bytes_per_second=needed,
            measured_bytes_per_second=rate,
            cache=cache,
            verdict=words,
            without_views=None if rows == 1 else self._plain(plain, fill / rows, epoch, full, frozen),
        )

    def _plain(self, sizes: dict[str, int], fill: float, epoch: float, full: float, frozen: float) -> Plain:
        return Plain(sizes, fill, pays_back_in(fill, epoch, full), pays_back_in(fill, epoch, frozen))

    @property
    def repeated(self) -> float:
        """How often an epoch reads a stored sample on average: more than once if the corpus repeats contents."""
        return self.census.records / self.census.unique

    @property
    def correction(self) -> float:
        """Mean tokens of a sample of the corpus, as a multiple of that of the drawn samples."""
        return self.tokens.total / self.census.unique / float(self.lengths.mean())

    def heads(self, cuts: Sequence[CutPlan]) -> list[HeadPlan]:
        """The head of the cut that takes the least time, views left out, and heads that read several states."""
        scale = Scale(
            records=self.census.records,
            unique=self.census.unique,
            row_count=self.tokens.total,
            tokens_share=self.tokens.total / self.census.unique / float(self.subject.lengths.mean()),
            epochs=self.settings.epochs,
            full_epoch_seconds=self.epoch_seconds("full"),
            free=self.free,
        )
        figures = [(one, self.fill_seconds(one.blocks), self.bytes(one.blocks, self.settings.dtype)) for one in cuts]
        best, fill, size = min(figures, key=lambda one: one[1] + scale.epochs * one[0].store_epoch_seconds)
        ours = forecast("of a cut", best.blocks, size, fill, best.store_epoch_seconds, scale)
        return [ours, *try_states(self.subject, scale)]

    def bytes(self, blocks: str, dtype: str) -> int:
        """Bytes of a store of the whole corpus at one cut, without views."""
        row = bytes_per_sample(self.trial.row_shapes[blocks], 1, dtype)
        return round(row * self.tokens.total + SAMPLE_BYTES * self.census.unique)

    def fill_seconds(self, blocks: str) -> float:
        """Seconds to fill a store without views, by padded tokens; sorting within windows leaves little padding."""
        batches = list(by_token_budget(self.lengths, self.subject.batch_tokens))
        tokens = sum(padded(self.lengths, batches)) * self.census.unique / len(self.lengths) * self.correction
        return self.trial.fill_seconds_a_token[blocks] * tokens

    def epoch_seconds(self, way: str) -> float:
        """Seconds of an epoch of one way to train: `full`, `store CUT` or `frozen CUT`."""
        settings = self.settings
        epoch: Epoch = epoch_of(self.lengths, self.census.records, self.correction, settings.batch_size, settings.seed)
        return self.trial.steps[way].seconds(epoch.batches, epoch.tokens)


def _bench(settings: PlanSettings) -> BenchSettings:
    return BenchSettings(
        verbs=(),
        cuts=settings.cuts,
        dtype=settings.dtype,
        batch_size=settings.batch_size,
        batch_tokens=settings.batch_tokens,
        batches=settings.batches,
        repetitions=settings.repetitions,
        seed=settings.seed,
    )


def _longest(subject: Subject) -> int:
    longest = subject.all_cuts.recipe.max_length
    assert longest is not None, "texts have a longest length"
    return longest


def _images(samples: Sequence[Sample], folder: Path) -> CorpusSettings:
    """Write the samples as a corpus, in the order of their keys."""
    root = folder / "images"
    root.mkdir()
    for number, sample in enumerate(samples):
        content = sample.fields["image"]
        assert isinstance(content, bytes)
        # The decoder finds out the format, so the ending does not matter.
        (root / f"{number:06d}.png").write_bytes(content)
    return CorpusSettings((str(root),))


def _texts(samples: Sequence[Sample], lengths: Indices, size: int, folder: Path) -> CorpusSettings:
    """Write some of the samples as a corpus, chosen so that their lengths are spread like those of all."""
    order = np.argsort(lengths, kind="stable")
    count = min(size, len(order))
    chosen = order[((np.arange(count) + 0.5) * len(order) / count).astype(np.int64)]
    path = folder / "sample.jsonl"
    with path.open("w", encoding="utf-8") as file:
        # Keep the order of the keys, which does not depend on lengths.
        file.writelines(json.dumps(dict(samples[place].fields)) + "\n" for place in np.sort(chosen).tolist())
    pair = "text_pair" if "text_pair" in samples[0].fields else None
    return CorpusSettings((str(path),), text_column="text", text_pair_column=pair)
