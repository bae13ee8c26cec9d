"""Reading what a training learns from: labelled examples, and those of them that can be used."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from recycle_cli.corpus import Corpus, Views
from recycle_cli.errors import DataError
from recycle_cli.models import OpenPreprocessor
from recycle_cli.reports import bar, spinner
from recycle_cli.settings import CorpusSettings, Job, SampleSettings, TrainingSettings, ViewSettings
from recycle_cli.tasks import Task, read_corpus
from recycle_cli.training.labelled_data import LabelledData, read_labelled, take_all
from recycle_cli.training.setup import Held, Setup
from recycle_cli.trunk import Needed, absent_from, check_parity, held_by, readable

LabelColumns = Sequence[str | None]
"""The column of labels of each head; None for the only one."""


@dataclass(frozen=True)
class Examples:
    """The samples to train on or to evaluate on, once for each head, with its labels; and what they were read from."""

    corpus: Corpus
    data: list[LabelledData]

    def take(self, data: list[LabelledData]) -> "Examples":
        """The same with other data."""
        return replace(self, data=data)


@dataclass(frozen=True)
class TrainingData:
    """`train`, and `evaluation` if there is any. `held`: share of the training samples that the store held before any
    was computed."""

    train: Examples
    evaluation: Examples | None
    held: float = 0.0

    @property
    def pairs(self) -> list[tuple[LabelledData, LabelledData | None]]:
        """What each head trains on and is evaluated on."""
        evaluation: Sequence[LabelledData | None] = (
            [None] * len(self.train.data) if self.evaluation is None else self.evaluation.data
        )
        return list(zip(self.train.data, evaluation, strict=True))


def read_data(
    job: Job, task: Task, columns: LabelColumns, preprocessor: OpenPreprocessor, views: Views = ()
) -> TrainingData:
    """Read the corpora. Their samples are kept only if there is no store to train from.

    columns  the column of labels of each head; heads may share one
    views    functions that make the views of a sample, which the store must hold too
    """
    keep = job.store is None
    named = columns if job.data.label_columns else [None] * len(columns)
    train = _read(job.data, task, dict.fromkeys(named), preprocessor, keep=keep, views=() if keep else views)
    if job.evaluation is None:
        return TrainingData(_for_heads(*train, named), None)
    known = {column: one.names if task.closed else None for column, one in train[1].items()}
    evaluation = _read(job.evaluation, task, known, preprocessor, keep=keep)
    return TrainingData(_for_heads(*train, named), _for_heads(*evaluation, named))


def _read(
    settings: CorpusSettings,
    task: Task,
    known: dict[str | None, list[str] | None],
    preprocessor: OpenPreprocessor,
    *,
    keep: bool,
    views: Views = (),
) -> tuple[Corpus, dict[str | None, LabelledData]]:
    """A corpus, and its data with the labels of each column; `known`: the known classes of each column."""
    corpus = read_corpus(settings, task, preprocessor, labelled=task.needs_labels)
    corpus.tell_columns()
    encoders = {column: task.encoder(names, preprocessor) for column, names in known.items()}
    with bar("read", corpus.total, stays=False) as progress:
        found = read_labelled(corpus, encoders, keep=keep, views=views, progress=progress)
    corpus.failures.tell()
    return corpus, dict(zip(known, found, strict=True))


def _for_heads(corpus: Corpus, data: dict[str | None, LabelledData], columns: LabelColumns) -> Examples:
    return Examples(corpus, [data[column] for column in columns])


def usable_data(
    data: TrainingData, job: Job, task: Task, setup: Setup, settings: TrainingSettings, views: Views
) -> TrainingData:
    """Keep the samples that the store holds, and check the parity of a few; without a store those that can be prepared.

    Only records that are skipped if they cannot be used are left out without a store.
    """
    where = setup.held
    if where is None:
        return replace(
            data, train=_readable(data.train, setup), evaluation=data.evaluation and _readable(data.evaluation, setup)
        )
    held = 1 - float(np.mean(absent_from(where.store, data.train.data[0].contents)))
    samples = task.samples_as(job.task)
    train = _held(data.train, where, settings, samples, settings.views, views)
    evaluation = data.evaluation and _held(data.evaluation, where, settings, samples)
    if settings.parity_check:
        with spinner("computing a few samples again, to compare them with the store"):
            check_parity(where.store, where.split, where.cut.split(","), train.data[0].probes)
    return TrainingData(train, evaluation, held)


def _readable(examples: Examples, setup: Setup) -> Examples:
    """The examples whose samples can be prepared, if the others are to be skipped and preparing is put off."""
    corpus, preprocessor = examples.corpus, setup.split.preprocessor
    if preprocessor.row_cost == 1 or not corpus.failures.skips:
        return examples
    usable = np.zeros(len(examples.data[0]), dtype=bool)
    usable[readable(examples.data[0].samples, preprocessor, corpus.reject)] = True
    if usable.all():
        return examples
    corpus.failures.tell()
    places = examples.data[0].whole(usable)
    if not len(places):
        raise DataError(f"{corpus.name}: none of the {len(usable):,} images can be used; correct them")
    return examples.take(take_all(examples.data, places))


def _held(
    examples: Examples,
    where: Held,
    settings: TrainingSettings,
    samples: SampleSettings,
    asked: ViewSettings = ViewSettings(),  # noqa: B008 - frozen
    views: Views = (),
) -> Examples:
    """The examples that the store holds, with their views: all of them, or as `--on-missing` says."""
    needed = Needed(examples.corpus, where.model.settings, asked, samples)
    contents = examples.data[0].contents
    held = held_by(where.store, contents, where.split, needed, settings.on_missing, views)
    if held.all():
        return examples
    places = examples.data[0].whole(held)
    if not len(places):
        raise DataError(f"{where.store.path} holds no example with all of its samples; run `recycle precompute` first")
    return examples.take(take_all(examples.data, places))
