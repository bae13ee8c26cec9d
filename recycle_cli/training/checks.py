"""What a training is asked for, and what of it cannot be: refused before anything is computed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from recycle_cli.batches.group_sampler import met_share
from recycle_cli.batches.inputs import Source, epoch_of
from recycle_cli.batches.stored import WindowedRows
from recycle_cli.errors import DataError, UsageError
from recycle_cli.models import refuse_foreign, takes_images
from recycle_cli.settings import CorpusSettings, ModelSettings, SimilaritySettings, TrainingSettings
from recycle_cli.store import Store
from recycle_cli.tasks import MOST_TO_COMPARE, SIMILARITY, Task, chosen_metric, task_of
from recycle_cli.training.labelled import Labelled
from recycle_cli.training.trainer import order_of

LEAST_MET = 0.9
"""Of the samples whose group has another, the share that must meet it in a batch, and one of another group."""


@dataclass(frozen=True)
class Job:
    """Where a training reads from and writes to. `store` None trains from the inputs; `cut` None takes the store's."""

    data: CorpusSettings
    output: str
    store: str | None = None
    evaluation: CorpusSettings | None = None
    task: str = "text-classification"
    cut: str | None = None
    model_named: bool = False
    overwrite: bool = False
    resume: bool = False
    tensorboard: bool = True


def task_asked(job: Job, settings: TrainingSettings) -> Task:
    """What a head is trained for."""
    return task_of(job.task, multi_label=job.data.multi_label, similarity=settings.similarity)


def of_images(job: Job, model: ModelSettings, store: Store | None) -> bool:
    """Whether the data are images. Raises UsageError where the task is of another kind than the model or the store."""
    images = takes_images(model) if store is None or job.model_named else store.recipe.modality == "image"
    kind, fitting = ("images", "image-classification") if images else ("texts", "text-classification")
    if job.task not in (fitting, SIMILARITY):
        taker = job.store if store is not None and not job.model_named else model.name
        raise UsageError(f"--task {job.task}: {taker} takes {kind}; use --task {fitting}")
    return images


def refuse_idle_options(job: Job, model: ModelSettings, settings: TrainingSettings, *, images: bool) -> None:
    """Raise UsageError for what could have no effect: it would be taken for done."""
    refuse_foreign(model, job.store or model.name, images=images)
    _refuse_of_task(job, settings)
    _refuse_of_adapters(settings, images=images)
    if (settings.mixup or settings.cutmix) and (job.store is None or not images):
        raise UsageError("--mixup and --cutmix mix stored activations of images; give a STORE of images")
    if job.store is None and (settings.in_memory or settings.memory is not None):
        raise UsageError("--memory and --in-memory say how a STORE is read; give one, or leave them out")
    if settings.in_memory and settings.memory is not None:
        raise UsageError("--in-memory reads all at once, --memory in windows; give one of the two")
    if job.store is not None and model.revision is not None and not job.model_named:
        raise UsageError(f"--revision {model.revision}: name the --model it belongs to; else the store's own is taken")


def _refuse_of_adapters(settings: TrainingSettings, *, images: bool) -> None:
    adapter = settings.adapter
    if adapter.kind == "bottleneck" and adapter.save != "apart":
        raise UsageError(
            "--adapter bottleneck cannot be merged into an ordinary checkpoint; add --adapter-save apart, and predict "
            "with `recycle predict`"
        )
    if images and adapter.kind != "none":
        raise UsageError(f"--adapter {adapter.kind}: only text models take adapters; leave the option out")


def _refuse_of_task(job: Job, settings: TrainingSettings) -> None:
    """Options that the task has no use for."""
    task = task_asked(job, settings)
    chosen_metric(task, settings.metric)
    if not task.mixes and (settings.mixup or settings.cutmix):
        raise UsageError(f"--mixup and --cutmix mix the labels of two images, which --task {job.task} has not")
    if not task.grouped:
        if given := _changed(settings.similarity):
            raise UsageError(
                f"{', '.join(given)}: only --task {SIMILARITY} takes it; leave it out of --task {job.task}"
            )
        return
    if job.data.multi_label:
        raise UsageError(f"--multi-label: --task {SIMILARITY} learns from groups, of which a sample has one")
    if settings.class_weights != "none":
        raise UsageError(f"--class-weights {settings.class_weights}: --task {SIMILARITY} draws its batches by group")
    if len(job.data.label_columns) > 1:
        raise UsageError(
            f"--task {SIMILARITY} draws the batches of all heads by the groups of one column, not of "
            f"{', '.join(job.data.label_columns)}; train the others on their own"
        )
    _refuse_of_similarity(settings)


def _refuse_of_similarity(settings: TrainingSettings) -> None:
    given = _changed(settings.similarity)
    idle = "--temperature" if settings.similarity.loss == "triplet" else "--margin"
    if idle in given:
        raise UsageError(f"{idle} {given[idle]}: --loss {settings.similarity.loss} has none; leave it out")
    together = settings.similarity.group_samples + 1  # where a last one would be alone
    if settings.batch_size < 2 * together:
        raise UsageError(
            f"--batch-size {settings.batch_size} leaves no room for two groups of up to {together} samples; give at "
            f"least {2 * together}, or fewer --group-samples"
        )


def _changed(asked: SimilaritySettings) -> Mapping[str, Any]:
    """The options of similarity that have not their defaults, with what they say."""
    usual = SimilaritySettings()
    options = {
        "--loss": (asked.loss, usual.loss),
        "--margin": (asked.margin, usual.margin),
        "--temperature": (asked.temperature, usual.temperature),
        "--group-samples": (asked.group_samples, usual.group_samples),
        "--embedding": (asked.embedding.kind, usual.embedding.kind),
        "--embedding-size": (asked.embedding.size, usual.embedding.size),
    }
    return {name: now for name, (now, default) in options.items() if now != default}


def check_groups(task: Task, pairs: Iterable[tuple[Labelled, Labelled | None]]) -> None:
    """Raise DataError where a task that learns from groups has too few of them to train or to evaluate on, or more
    samples to evaluate on than can be compared."""
    for data, evaluation in pairs if task.grouped else ():
        _expect_groups(data)
        if evaluation is None:
            continue
        _expect_groups(evaluation, "--eval: ")
        if len(evaluation) > MOST_TO_COMPARE:
            raise DataError(
                f"--eval holds {len(evaluation):,} samples, each compared with all the others, expected at most "
                f"{MOST_TO_COMPARE:,}; give fewer"
            )


def _expect_groups(data: Labelled, where: str = "") -> None:
    """Raise DataError where no two samples are of one group, or all are."""
    sizes = np.unique(data.targets, return_counts=True)[1]
    if sizes.max() < 2:
        raise DataError(
            f"{where}no two of the {len(data):,} samples have the same label, expected groups; check the label column"
        )
    if len(sizes) < 2:
        raise DataError(
            f"{where}all of the {len(data):,} samples have the label {data.names[data.targets[0]]!r}, expected at "
            "least two groups; give samples of another, too"
        )


def check_batches(task: Task, data: Labelled, source: Source, settings: TrainingSettings) -> None:
    """Raise UsageError where too many batches would hold nothing for the samples of a group to be compared with."""
    if not task.grouped:
        return
    order = order_of(task, data, settings)
    met = met_share(epoch_of(source, order, 0).batches, data.targets)
    if met >= LEAST_MET:
        return
    where, remedy = "", "give a larger --batch-size, or fewer --group-samples"
    if isinstance(source, WindowedRows) and met_share(order.batches(source.lengths, 0), data.targets) >= LEAST_MET:
        where, remedy = f"read in windows of {source.memory:,} bytes, ", "add --in-memory, or give more --memory"
    raise UsageError(
        f"{where}{met:.0%} of the samples would meet another of their group and one of another group in a batch, "
        f"expected {LEAST_MET:.0%}; {remedy}"
    )
