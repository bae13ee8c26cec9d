"""Bench prediction with all samples in the store, beside the bare head and the full model on the same records."""

from dataclasses import replace
from functools import partial

import numpy as np
import torch

from recycle_cli.batches import StoredRows, widened
from recycle_cli.bench.layout import predict_cuts, prefix
from recycle_cli.bench.subject import CLASSES, SILENT, Subject
from recycle_cli.bench.timing import WARM_UP, Clock, Run, Runner
from recycle_cli.runs import RunInfo, save_run
from recycle_cli.runtime.devices import autocast, to_device
from recycle_cli.scorer import Scorer, open_scorer
from recycle_cli.settings import ImageSettings, PredictSettings
from recycle_cli.trunk import by_token_budget
from recycle_cli.verbs.predict import score

SHARE = 2
"""One record in so many is scored, since the full model takes twice as long for a record as the trunk."""

FEW = 64


def runners(subject: Subject) -> dict[str, Runner]:
    """Runners of the full model once, and of the store and the bare head at each cut, 100% included."""
    found: dict[str, Runner] = {}
    cuts = subject.settings.cuts
    for cut in predict_cuts(cuts):
        run, group = run_at(subject, subject.resolve(cut)), prefix("predict", cut, cuts)
        if cut == cuts[0]:
            found["predict.full"] = partial(_scored, subject, _opened(subject, run, None))
        hits = _opened(subject, run, subject.store.path)
        found[f"{group}.store"] = partial(_scored, subject, hits)
        found[f"{group}.bare_head"] = partial(_bare_head, subject, hits, _ready(subject, hits))
    return found


def ours(subject: Subject) -> Runner:
    """The runner of `recycle predict` with the store, at the first cut."""
    run = run_at(subject, subject.resolve(subject.settings.cuts[0]))
    return partial(_scored, subject, _opened(subject, run, subject.store.path))


def _opened(subject: Subject, run: str, store: str | None) -> Scorer:
    """A RUN to measure, without the parity check, which is done once a run: rows of random weights may be too small for
    float16."""
    network = replace(subject.model, name=run, revision=None, max_length=None, images=ImageSettings())
    return open_scorer(run, store, network, PredictSettings(batch_tokens=subject.batch_tokens, parity_check=False))


def run_at(subject: Subject, cut: str) -> str:
    """Save a RUN that was never trained. Its predictions are worthless, but its speed is that of any RUN."""
    folder = subject.folder()
    plain = "image-classification" if subject.images else "text-classification"
    info = RunInfo(
        task=subject.settings.samples.task or plain,
        settings=subject.task.identity(),
        model=subject.model.name,
        cut=cut,
        max_length=subject.all_cuts.recipe.max_length,
        report={"metrics": {}, "train_seconds": 0.0, "samples": 0, "classes": list(CLASSES)},
    )
    save_run(folder, subject.load().loaded, info, card="")
    return str(folder)


def _scored(subject: Subject, scorer: Scorer, repetition: int) -> Run:
    output = subject.scratch / "predictions.jsonl"
    limit = FEW if repetition == WARM_UP else scored_part(subject)[0]
    done = score(scorer, subject.records(limit), str(output), SILENT)
    return Run(done.seconds, done.samples)


Ready = list[tuple[torch.Tensor, torch.Tensor]]


def _ready(subject: Subject, scorer: Scorer) -> Ready:
    """Batches of rows and lengths of all records to score, widened and on the device."""
    assert scorer.store is not None
    positions = subject.positions[: scored_part(subject)[1]]
    stored = StoredRows.of(scorer.store, scorer.cuts[0], positions)
    batches = by_token_budget(stored.lengths * scorer.preprocessor.row_cost, scorer.batch_tokens)
    loaded = (to_device(stored.load(members), subject.device) for members in batches)
    return [(widened(batch), batch["lengths"]) for batch in loaded]


def _bare_head(subject: Subject, scorer: Scorer, ready: Ready, repetition: int) -> Run:
    head, clock = scorer.split.head_from(scorer.cuts[0]), Clock(subject.device)
    chosen = ready[-1:] if repetition == WARM_UP else ready
    with clock.running(), torch.inference_mode(), autocast(subject.device, subject.model.precision):
        for rows, lengths in chosen:
            head(rows, lengths)
    return Run(clock.seconds, scored_part(subject)[1])


def scored_part(subject: Subject) -> tuple[int, int]:
    """How many records are scored, and how many samples they have."""
    parents = subject.data.parents
    if parents is None:
        return len(subject.data) // SHARE, len(subject.data) // SHARE
    records = (int(parents[-1]) + 1) // SHARE
    return records, int(np.searchsorted(parents, records))
