"""What a training learns from: labelled samples, and the source of their rows or inputs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from recycle_cli.batches.inputs import Images, RawInputs, Source, readable, stored_source
from recycle_cli.batches.stored import StoredRows
from recycle_cli.intake import Intake
from recycle_cli.keys import Views
from recycle_cli.models import views_of
from recycle_cli.settings import HeadSettings, TrainingSettings
from recycle_cli.tasks import Task
from recycle_cli.training.checks import Job
from recycle_cli.training.labelled import Labelled, read_targets, take_all
from recycle_cli.training.setup import Setup
from recycle_cli.trunk.missing import absent_from, covered
from recycle_cli.trunk.parity import check_parity


@dataclass(frozen=True)
class Material:
    """The samples to train on, and those to evaluate on, if any: one for each head, with its labels.

    `corpus` is what they were read from. `held`: the share of them that the store held before any was computed.
    """

    corpus: Intake
    data: list[Labelled]
    evaluation: list[Labelled] | None
    held: float = 0.0

    @property
    def pairs(self) -> list[tuple[Labelled, Labelled | None]]:
        """Of each head what it trains on and what it is evaluated on."""
        evaluation: Sequence[Labelled | None] = self.evaluation or [None] * len(self.data)
        return list(zip(self.data, evaluation, strict=True))


def read(job: Job, heads: Sequence[HeadSettings], task: Task, *, images: bool) -> Material:
    """Read the corpora, whose samples are kept only where they are trained from."""
    corpus = Intake(job.data, labelled=True, images=images)
    corpus.tell_columns()
    keep = job.store is None
    views = () if keep else views_of(heads[0].training.views, images=images)
    columns = [head.label_column if job.data.label_columns else None for head in heads]
    found = dict.fromkeys(columns)
    data = dict(zip(found, read_targets(corpus, found, task=task, keep=keep, views=views), strict=True))
    corpus.tell()
    if job.evaluation is None:
        return Material(corpus, [data[column] for column in columns], None)
    other = Intake(job.evaluation, labelled=True, images=images)
    known = {column: one.names if task.closed else None for column, one in data.items()}
    evaluation = dict(zip(known, read_targets(other, known, task=task, keep=keep), strict=True))
    other.tell()
    return Material(corpus, [data[column] for column in columns], [evaluation[column] for column in columns])


def usable(material: Material, job: Job, setup: Setup, settings: TrainingSettings) -> Material:
    """What of it the store holds, proved on a few samples; without a store the images that can be decoded."""
    store, corpus, data, evaluation = setup.store, material.corpus, material.data, material.evaluation
    if store is None:
        if setup.split.recipe.modality == "image" and job.data.on_error == "skip":
            data = take_all(data, readable(setup.split, data[0].samples, corpus.reject))
            corpus.tell()
        return replace(material, data=data)
    held = 1 - float(np.mean(absent_from(store, data[0])))
    data = covered(corpus.resolved, data, store, setup.split, setup.model, settings.on_missing, settings.views)
    if job.evaluation and evaluation:
        evaluation = covered(job.evaluation, evaluation, store, setup.split, setup.model, settings.on_missing)
    if settings.parity_check:
        check_parity(store, setup.split, setup.cut, data[0].probes, setup.device)
    return Material(corpus, data, evaluation, held)


def source_of(setup: Setup, data: Labelled, settings: TrainingSettings, views: Views = ()) -> Source:
    """Where batches of the samples come from; `views` augment images that are decoded anew in each epoch."""
    store = setup.store
    if store is not None:
        places = tuple(store.lookup(keys, digests) for keys, digests in data.views)
        rows = StoredRows.of(store, setup.cut, store.lookup(data.keys, data.digests), places)
        return stored_source(rows, settings.memory, in_memory=settings.in_memory)
    if setup.split.recipe.modality == "image":
        return Images.of(setup.split, data.samples, views)
    return RawInputs.of(setup.split, data.samples)
