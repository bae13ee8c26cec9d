"""`recycle bench`: measure the chosen verbs one after another on one subject."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from recycle_cli.bench import contention, finetune, freezing, heads, precompute, predict, ranks, read, serve
from recycle_cli.bench.compare import Worse, read_figures, worse
from recycle_cli.bench.figures import Figure, figures_of
from recycle_cli.bench.layout import Layout, layout
from recycle_cli.bench.machine import machine, versions
from recycle_cli.bench.subject import Subject, subject_of
from recycle_cli.bench.timing import Runner, Unavailable, interleaved, turns_on
from recycle_cli.errors import UsageError
from recycle_cli.models import LoadedImages, NamedModel
from recycle_cli.reports import Bar, bar
from recycle_cli.requirements import parse_requirement
from recycle_cli.runtime.signals import interrupted_as
from recycle_cli.settings import BenchSettings, CorpusSettings, ModelSettings

NOT_MEASURED = "by this bench, whose --json lists all figures"

COMPRESSED = {"precompute", "heads"}
"""Verbs that can measure a compressed store. The others read it sample by sample at random, as training never does."""

RUNNERS: Mapping[str, Callable[[Subject], Mapping[str, Runner | Unavailable]]] = {
    "precompute": precompute.runners,
    "read": read.runners,
    "finetune": finetune.runners,
    "predict": predict.runners,
    "serve": serve.runners,
    "heads": heads.runners,
    "freezing": freezing.runners,
    "contention": contention.runners,
    "ranks": ranks.runners,
}


@dataclass(frozen=True)
class Bench:
    """The figures and what they were measured on. `worse` lists figures that became worse since an older bench."""

    figures: dict[str, Figure]
    machine: dict[str, Any]
    versions: dict[str, str]
    settings: dict[str, Any]
    worse: list[Worse] | None = None


def bench(
    corpus: CorpusSettings,
    model: ModelSettings,
    settings: BenchSettings,
    *,
    scratch: str | None = None,
    require: Sequence[str] = (),
    compare: str | None = None,
) -> Bench:
    """Measure all figures. Raises UsageError first if a cut or what is required makes no sense; `check_requirements`
    judges the figures.

    If the corpus has no source or the model no name, a synthetic one is made. Stores are written in `scratch`.
    """
    _check(settings, corpus)
    images = bool(model.name) and NamedModel(model).modality == "image"
    layouts = [layout(verb, settings.cuts, images=images, ranks=settings.ranks) for verb in settings.verbs]
    known = [name for one in layouts for name in one.names()]
    for text in require:
        parse_requirement(text, known, NOT_MEASURED)
    old = None if compare is None else read_figures(compare)
    with (
        _quiet_tokenizers(),
        TemporaryDirectory(prefix="recycle-bench-", dir=scratch) as folder,
        interrupted_as("interrupted; nothing is kept, as a bench shows its figures at the end"),
        bar("bench") as progress,
    ):
        progress.update(note="reading the corpus, loading the model")
        subject = subject_of(corpus, model, settings, Path(folder))
        figures = _measured(subject, layouts, progress)
        return Bench(
            figures=figures,
            machine=machine(subject.device),
            versions=versions(),
            settings=_settings(subject, corpus),
            worse=None if old is None else worse(old, figures),
        )


def _measured(subject: Subject, layouts: Sequence[Layout], progress: Bar) -> dict[str, Figure]:
    """The figures of all verbs, one verb after another."""
    repetitions = subject.settings.repetitions
    turns = sum(len(one.variants) for one in layouts) * (repetitions + 1)
    progress.update(total=turns, note="filling a store")
    note = turns_on(progress)
    figures: dict[str, Figure] = {}
    for one in layouts:
        runners = RUNNERS[one.verb](subject)
        assert set(runners) == set(one.variants), f"{sorted(set(runners) ^ set(one.variants))}"
        runs = interleaved(runners, repetitions, subject.device, note)
        figures |= figures_of(one, runs, len(subject.data))
    return figures


def _check(settings: BenchSettings, corpus: CorpusSettings) -> None:
    if not settings.verbs or not settings.cuts:
        raise UsageError("nothing to measure: name a verb and at least one --cut")
    if len(set(settings.cuts)) < len(settings.cuts):
        raise UsageError(f"--cut {' --cut '.join(settings.cuts)}: name each cut once")
    if any(cut in ("0", "0%") for cut in settings.cuts):
        raise UsageError("--cut 0 freezes nothing, so there is nothing to set against full fine-tuning; name another")
    if settings.codec != "none" and not set(settings.verbs) <= COMPRESSED:
        named = " or ".join(sorted(COMPRESSED))
        raise UsageError(f"--codec {settings.codec}: a compressed store is measured by {named} alone; name one of them")
    if corpus.label_column is not None and settings.samples.task is None:
        raise UsageError(f"--label-column {corpus.label_column}: labels are invented here; name the --task they are of")


def _settings(subject: Subject, corpus: CorpusSettings) -> dict[str, Any]:
    model, loaded = subject.model, subject.network.loaded
    return {
        "corpus": list(corpus.source) or "synthetic",
        "model": model.name if Path(model.name).parent != subject.scratch else "synthetic",
        "max_length": subject.all_cuts.recipe.max_length,
        "image_size": list(loaded.transform.size) if isinstance(loaded, LoadedImages) else None,
        "weights": loaded.weights if isinstance(loaded, LoadedImages) else None,
        "precision": model.precision,
        "records": len(subject.data),
        "tokens": None if subject.images else int(subject.lengths.sum()),
        **asdict(subject.settings),
        "batch_tokens": subject.batch_tokens,
    }


@contextmanager
def _quiet_tokenizers() -> Iterator[None]:
    """Keep tokenizers from warning when a process that used them forks, as data loaders of the baselines may do."""
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    try:
        yield
    finally:
        if before is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
