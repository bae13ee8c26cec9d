"""Predict with a RUN: what the store holds goes straight to the head, the rest through the trunk first."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from recycle_cli import runs
from recycle_cli.batches.stored import Indices, StoredRows, widened
from recycle_cli.errors import DamageError, DataError, MismatchError, UsageError
from recycle_cli.intake import Intake
from recycle_cli.keys import Sample
from recycle_cli.models import SplitModel, open_network
from recycle_cli.models.adapters import BASE, put_back
from recycle_cli.precompute import Underway
from recycle_cli.reports import Bar, bar
from recycle_cli.runs.predictions import open_output
from recycle_cli.runtime.devices import autocast, batch_tokens_on, device_of, pinned_for, to_device
from recycle_cli.runtime.overlap import prefetch
from recycle_cli.settings import CorpusSettings, ModelSettings, PredictSettings
from recycle_cli.store import SegmentWriter, Store
from recycle_cli.tasks import Scores, task_of
from recycle_cli.training.labelled import PROBES
from recycle_cli.trunk.missing import expect
from recycle_cli.trunk.parity import check_parity
from recycle_cli.trunk.stream import (
    Reject,
    TrunkBatch,
    Window,
    batches_of,
    by_token_budget,
    prepared_ahead,
    restored,
    rows_of,
)


@dataclass(frozen=True)
class Predicted:
    """What a prediction did. `metrics` are there where the data are labelled, else `no_metrics` says what is amiss;
    times in seconds."""

    samples: int
    hits: int
    misses: int
    hit_share: float
    seconds: float
    samples_per_second: float
    metrics: dict[str, float] | None
    output: str
    failed_samples: int
    no_metrics: str | None = None


@dataclass
class Scored:
    """A window with its logits (n, C), filled batch by batch; `left` samples still to come of those at `kept`."""

    window: Window
    logits: torch.Tensor
    left: int
    kept: Indices

    def samples(self) -> list[Sample]:
        """The samples that get a prediction."""
        return [self.window.samples[place] for place in self.kept.tolist()]


@dataclass(frozen=True)
class Work:
    """One batch for the head: either stored rows, or inputs that go through the trunk first."""

    scored: Scored
    members: Indices
    stored: dict[str, torch.Tensor] | None = None
    raw: TrunkBatch | None = None


class Predictor:
    """A RUN ready to score samples: the split model, its cut, and the store where there is one."""

    def __init__(self, run: str, store: str | None, model: ModelSettings, settings: PredictSettings) -> None:
        about = runs.about(run)
        self.multi_label = bool(about.get("multi_label"))
        self.task = task_of(about["task"], multi_label=self.multi_label, threshold=settings.threshold)
        if settings.threshold != PredictSettings.threshold and not self.multi_label:
            raise UsageError(
                f"--threshold {settings.threshold:g}: {run} does not decide on several labels; leave it out"
            )
        self.cut: str = about["cut"]
        self.settings, self.precision = settings, model.precision
        self.device = device_of(model.device)
        self.store = None if store is None else _store_for(store, self.cut, settings)
        apart = bool(about.get("apart"))
        name = str(Path(run, BASE)) if apart else run
        network = open_network(replace(model, name=name, max_length=about["max_length"]), self.task.layer(()).kept)
        if apart:
            put_back(network.loaded.model, Path(run))
        dtype = "float32" if self.store is None else self.store.recipe.dtype
        self.split: SplitModel = network.split((self.cut,), dtype)
        self.images = self.split.recipe.modality == "image"
        if self.store is not None:
            expect(self.store, self.split.recipe.computed_in(self.store.recipe.precision), self.cut)
        self.split.model.to(self.device).eval()
        # A store of its own: seeing what was sealed changes positions, which are in use here.
        self._written = Underway(Store.open(self.store.path)) if self.store and settings.write_back else None
        self._unproved = settings.parity_check
        self.names: list[str] = list(network.loaded.labels)

    @property
    def batch_tokens(self) -> int:
        """Rows a batch at most."""
        return batch_tokens_on(self.device, self.settings.batch_tokens)

    @property
    def ending(self) -> str:
        """Of the file of predictions, unless the user says otherwise."""
        return ".parquet" if "numbers" in self.task.columns(()).values() else ".csv"

    @property
    def head(self) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        """What turns stored rows into logits. Raises UsageError for a RUN that was trained whole."""
        return self.split.head_from(self.cut)

    def work(self, samples: Iterable[Sample], reject: Reject | None = None) -> Iterator[Work]:
        """All batches of all windows: hits first, then misses, each sorted by length.

        A sample that cannot be prepared goes to `reject` and gets no prediction.
        """
        lookup = None if self.store is None else self.store.lookup
        for ready in prepared_ahead(samples, self.split, self.settings.window, lookup, _absent, reject):
            window = ready.window
            kept = np.concatenate([np.flatnonzero(window.positions >= 0), ready.places])
            scored = Scored(window, torch.empty(len(window.samples), len(self.names)), len(kept), np.sort(kept))
            yield from self._hits(scored)
            for batch in batches_of(ready.places, ready.prepared, self.split, self.batch_tokens):
                yield Work(scored, batch.members, raw=batch)

    def _hits(self, scored: Scored) -> Iterator[Work]:
        held = np.flatnonzero(scored.window.positions >= 0)
        if self.store is None or not len(held):
            return
        if self._unproved:
            few = held[np.unique(np.linspace(0, len(held) - 1, PROBES, dtype=np.int64))]
            probes = [scored.window.samples[place] for place in few.tolist()]
            check_parity(self.store, self.split, self.cut, probes, self.device)
            self._unproved = False
        rows = StoredRows.of(self.store, self.cut, scored.window.positions[held])
        for members, batch in rows.loaded(
            list(by_token_budget(rows.lengths * self.split.preprocessor.row_cost, self.batch_tokens))
        ):
            yield Work(scored, held[members], stored=pinned_for(batch, self.device))

    def logits(self, work: Work, writer: SegmentWriter | None) -> torch.Tensor:
        """Logits (B, C) of a batch, float32 on the CPU; misses are rounded as the store would, and kept if asked to."""
        with torch.inference_mode(), autocast(self.device, self.precision):
            if work.stored is not None:
                batch = to_device(work.stored, self.device)
                logits = self.head(widened(batch), batch["lengths"])
            elif work.raw is not None and self.store is not None:
                logits = self._through_trunk(work, work.raw, self.store, writer)
            else:
                assert work.raw is not None
                logits = self.split.full(to_device(work.raw.inputs, self.device))
            return self._finite(logits.float().cpu(), work)

    def _finite(self, logits: torch.Tensor, work: Work) -> torch.Tensor:
        """The logits. Raises DamageError for stored rows, DataError for a model, from which no number comes."""
        wrong = np.flatnonzero(~torch.isfinite(logits).flatten(1).all(1).numpy())
        if not len(wrong):
            return logits
        named = f"record {work.scored.window.samples[work.members[wrong[0]]].id}"
        if work.stored is not None and self.store is not None:
            raise DamageError(
                f"{self.store.path}: the stored rows of {named} give no number (NaN or infinite); "
                f"run `recycle store verify --repair`"
            )
        raise DataError(f"{named}: the model gives no number for it (NaN or infinite); its weights may be damaged")

    def _through_trunk(self, work: Work, raw: TrunkBatch, store: Store, writer: SegmentWriter | None) -> torch.Tensor:
        with autocast(self.device, store.recipe.precision):
            activations = self.split.trunk(to_device(raw.inputs, self.device))
        rows = rows_of(activations[self.cut], raw.lengths, store.recipe.dtype)
        if writer is not None:
            self._keep(work, raw, activations[self.cut], writer)
        stored = restored(rows, raw.lengths, store.recipe.dtype).to(self.device)
        return self.head(stored, torch.from_numpy(raw.lengths).to(self.device))

    def _keep(self, work: Work, raw: TrunkBatch, activations: torch.Tensor, writer: SegmentWriter) -> None:
        """Write rows back, each content once, however often the data repeat it."""
        assert self._written is not None
        keys, digests = work.scored.window.keys[work.members], work.scored.window.digests[work.members]
        positions = self._written.lookup(keys, digests)
        samples = [work.scored.window.samples[place] for place in work.members.tolist()]
        first = self._written.first(Window(samples, keys, digests, positions))
        if len(first):
            rows = rows_of(activations[first], raw.lengths[first], self.split.recipe.dtype)
            writer.append(keys[first], digests[first], raw.lengths[first], {self.cut: rows})


def predict(
    data: CorpusSettings,
    run: str,
    store: str | None,
    output: str | None,
    model: ModelSettings,
    settings: PredictSettings,
) -> Predicted:
    """Score a corpus with a RUN and write a record a sample, in the corpus's order; without `output` into the RUN."""
    if settings.write_back and store is None:
        raise UsageError("--write-back needs a --store to write to")
    predictor = Predictor(run, store, model, settings)
    output = output or f"{run.rstrip('/')}/predictions{predictor.ending}"
    failures = data.failures or f"{output}.failures.jsonl"
    data = replace(data, failures=failures, multi_label=predictor.multi_label)
    samples = Intake(data, images=predictor.images)
    samples.tell_columns()
    with bar("predict", samples.total) as progress:
        samples.count_ahead(progress)
        return score(predictor, samples, output, progress)


def score(predictor: Predictor, samples: Intake, output: str, progress: Bar) -> Predicted:
    """Score samples with a loaded RUN and write a record a sample; `seconds` are those of all but the metrics."""
    task, names, hits, total = predictor.task, predictor.names, 0, 0
    scores = Scores(task, names)
    started = time.perf_counter()
    with ExitStack() as stack:
        out = stack.enter_context(open_output(output, task.columns(names)))
        writer = stack.enter_context(_writer(predictor.store, predictor.settings))
        for work in prefetch(predictor.work(samples, samples.reject)):
            scored = work.scored
            scored.logits[torch.from_numpy(work.members)] = predictor.logits(work, writer)
            scored.left -= len(work.members)
            hits += len(work.members) if work.stored is not None else 0
            total += len(work.members)
            progress.update(len(work.members), note=f"{hits / total:.0%} hits")
            if scored.left == 0:
                out(scored.samples(), task.predictions(scored.logits[scored.kept], names))
                scores.add(scored.logits[scored.kept], [sample.label for sample in scored.samples()])
    seconds = time.perf_counter() - started
    samples.tell()
    return Predicted(
        samples=total,
        hits=hits,
        misses=total - hits,
        hit_share=hits / max(1, total),
        seconds=seconds,
        samples_per_second=total / seconds,
        metrics=scores.figures(),
        output=output,
        failed_samples=samples.failed,
        no_metrics=scores.why_none(samples.columns.label),
    )


def _absent(window: Window) -> Indices:
    return np.flatnonzero(window.positions < 0)


def _store_for(path: str, cut: str, settings: PredictSettings) -> Store:
    if cut == "0":
        raise UsageError(f"this run was trained whole (cut 0), so {path} holds nothing for it; leave out --store")
    store = Store.open(path)
    if cut not in store.recipe.cuts:
        raise MismatchError(f"{path} holds the cut {', '.join(store.recipe.cuts)}; this run needs {cut}")
    if settings.write_back and len(store.recipe.cuts) > 1:
        raise UsageError(f"{path} holds several cuts, of which this run makes only {cut}; leave out --write-back")
    return store


def _writer(store: Store | None, settings: PredictSettings) -> "SegmentWriter | nullcontext[None]":
    return store.writer() if store is not None and settings.write_back else nullcontext()
