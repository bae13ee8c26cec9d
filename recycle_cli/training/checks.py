"""Refusing options: what a training is asked for and cannot be, found out before anything is computed."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from recycle_cli import runs
from recycle_cli.batches import Indices, RowSource
from recycle_cli.corpus import is_pipe, name_of
from recycle_cli.errors import DataError, UsageError
from recycle_cli.models import NamedModel
from recycle_cli.settings import HeadSettings, Job, TrainingSettings, same_for_all_heads
from recycle_cli.settings.option import each_option
from recycle_cli.store import Store
from recycle_cli.tasks import Task, check_layers, check_pooled, chosen_metric, task_of
from recycle_cli.training.freezing.checks import refuse_of_freezing
from recycle_cli.training.labelled_data import LabelledData

_OF_SOLVING = ("metric", "seed", "order-seed", "batch-size")
"""The options of a training that solving has, too; rows are read in batches."""

HEAD_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def check_sources(job: Job) -> None:
    """Raise UsageError if training and evaluation would read the same pipe, which can be read once."""
    shared = [] if job.evaluation is None else [name for name in job.evaluation.source if name in job.data.source]
    for name in filter(is_pipe, shared):
        raise UsageError(f"{name_of(name)} can be read once, not for both DATA and --eval; give --eval a file")


def modality_asked(job: Job, model: NamedModel, store: Store | None) -> str:
    """The modality of the data: the store's, unless the user named a model."""
    return model.modality if store is None or job.model_named else store.recipe.modality


def task_asked(job: Job, taker: str, modality: str, settings: TrainingSettings) -> Task:
    """The task that a head is trained for. `taker`: the model or the store that says what kind of input it is.

    Raises UsageError for a task of other inputs, and for options that do not fit it.
    """
    task = task_of(job.task, modality, settings.task, taker)
    chosen_metric(task, settings.metric)
    if not task.mixes and (settings.mixup or settings.cutmix):
        raise UsageError(f"--mixup and --cutmix mix the labels of two images, which --task {job.task} has not")
    if task.draws_by_label and len(job.data.label_columns) > 1:
        raise UsageError(
            f"--task {job.task} draws the batches of all heads by the groups of one column, not of "
            f"{', '.join(job.data.label_columns)}; train the others on their own"
        )
    check_layers(settings.layers, modality, job.task, pools=task.pools)
    check_pooled(settings.layers, modality, job.task, task.layer(()))
    _refuse_of_models_layers(settings)
    if is_solved(task, settings):
        _refuse_of_epochs(settings)
    task.check_options(settings)
    return task


def is_solved(task: Task, settings: TrainingSettings) -> bool:
    """Whether the optimum of a head is computed, and it does not train in epochs."""
    return settings.layers.is_solved and not task.layer(()).embeds


def _refuse_of_models_layers(settings: TrainingSettings) -> None:
    """Raise UsageError for options of the model's own layers, of which a head that reads several states has none."""
    kind = settings.layers.kind
    if not settings.layers.reads_states:
        return
    if settings.adapter.kind != "none":
        raise UsageError(
            f"--adapter {settings.adapter.kind} is put on the model's own layers; leave it out of --head {kind}"
        )
    if settings.cutmix:
        raise UsageError(f"--cutmix replaces a box of one map, and --head {kind} reads several; use --mixup")


def _refuse_of_epochs(settings: TrainingSettings) -> None:
    """Raise UsageError for options of a training in epochs, which a head that is solved does not go through."""
    changed = [one for one in each_option(settings) if one.is_changed]
    of_epochs = [one.name for one in changed if one.option.panel == "Training" and one.name not in _OF_SOLVING]
    per_epoch = [name for name, value in (("mixup", settings.mixup), ("views", settings.views.views)) if value]
    idle = [f"--{name}" for name in (*of_epochs, *per_epoch)]
    if idle:
        raise UsageError(
            f"{', '.join(idle)}: a linear pooled head is solved, and does not train in epochs; leave it out, or add "
            "--pooled-hidden"
        )


def refuse_idle_options(job: Job, model: NamedModel, settings: TrainingSettings, modality: str) -> None:
    """Raise UsageError for options that could have no effect: they would be taken for done."""
    model.refuse_foreign(job.store or model.name, modality)
    _refuse_of_optimizer(settings)
    _refuse_of_adapters(settings, modality)
    _refuse_of_reuse(job, settings)
    refuse_of_freezing(job, settings)
    if job.head_init is not None and settings.layers.reads_states:
        kind = settings.layers.kind
        raise UsageError(
            f"--head-init {job.head_init}: a head of the model's own layers begins so; leave out --head {kind}"
        )
    if (settings.mixup or settings.cutmix) and (job.store is None or modality != "image"):
        raise UsageError("--mixup and --cutmix mix stored activations of images; give a STORE of images")
    if job.store is None and (settings.in_memory or settings.memory is not None):
        raise UsageError("--memory and --in-memory say how a STORE is read; give one, or leave them out")
    if settings.in_memory and settings.memory is not None:
        raise UsageError("--in-memory reads all at once, --memory in windows; give one of the two")
    revision = model.settings.revision
    if job.store is not None and revision is not None and not job.model_named:
        raise UsageError(f"--revision {revision}: name the --model it belongs to; else the store's own is taken")


def _refuse_of_optimizer(settings: TrainingSettings) -> None:
    if settings.optimizer == "sgd" and settings.learning_rate is None:
        raise UsageError("--optimizer sgd: name the --learning-rate; the defaults are AdamW's")
    if settings.optimizer != "sgd" and settings.momentum != TrainingSettings.momentum:
        raise UsageError(f"--momentum {settings.momentum:g}: only --optimizer sgd has one; add that, or leave this out")


def _refuse_of_adapters(settings: TrainingSettings, modality: str) -> None:
    adapter = settings.adapter
    if adapter.kind == "bottleneck" and adapter.save != "apart":
        raise UsageError(
            "--adapter bottleneck cannot be merged into an ordinary checkpoint; add --adapter-save apart, and predict "
            "with `recycle predict`"
        )
    if modality != "text" and adapter.kind != "none":
        raise UsageError(f"--adapter {adapter.kind}: only text models take adapters; leave the option out")


def _refuse_of_reuse(job: Job, settings: TrainingSettings) -> None:
    if job.reuse is None:
        return
    if job.store is not None:
        raise UsageError(
            f"--reuse {job.reuse}: its rows enter before the first block, so that the model must run whole and cannot "
            f"train from {job.store}; leave one of the two out"
        )
    if settings.layers.reads_states:
        head = f"--head {settings.layers.kind}"
        raise UsageError(f"--reuse {job.reuse}: its rows enter a model that trains whole; leave out {head}")
    if settings.adapter.kind != "none":
        raise UsageError(
            f"--reuse {job.reuse}: the layers that bring its rows in train whole, and the model with them; leave out "
            f"--adapter {settings.adapter.kind}"
        )


def check_heads(heads: Sequence[HeadSettings]) -> None:
    """Raise UsageError for heads that cannot train together: their names are no folders, or options that must be the
    same for all of them differ."""
    if not heads:
        raise UsageError("there is no head to train; name at least one")
    if any(head.training.freezing.freezes for head in heads):
        raise UsageError(
            "--freeze: heads that train together read the same rows, and the cut of each would move on its own; leave "
            "out --heads, and train them one by one"
        )
    seen: set[str] = set()
    first = _shared(heads[0])
    for head in heads:
        check_head_name(head.name)
        if head.name.lower() in seen:
            raise UsageError(f"two heads have the name {head.name!r}; each RUN is OUTPUT/NAME, so name each anew")
        seen.add(head.name.lower())
        for name, value in _shared(head).items():
            if name in first and value != first[name]:
                raise UsageError(
                    f"head {head.name!r}: {name} is {value} and that of {heads[0].name!r} is {first[name]}, but all "
                    "heads train on the same batches; give them the same"
                )


def check_head_name(name: object) -> None:
    """Raise UsageError for what cannot be the name of a head, which is that of its RUN's folder."""
    if not isinstance(name, str) or not HEAD_NAME.fullmatch(name):
        raise UsageError(f"name = {name!r}; expected letters, digits, '.', '_' and '-': its RUN is OUTPUT/NAME")
    if name.lower() in runs.RESERVED:
        raise UsageError(f"head {name!r}: a RUN has a file of this name, and OUTPUT is none; name it anew")


def _shared(head: HeadSettings) -> dict[str, Any]:
    return same_for_all_heads(head.training) | {"order-seed": head.training.shuffle_seed}


def check_data(task: Task, pairs: Iterable[tuple[LabelledData, LabelledData | None]]) -> None:
    """Raise DataError if the task cannot be trained on the first of a pair, or evaluated on the second."""
    for data, evaluation in pairs:
        task.check_data(data.targets, data.names)
        if evaluation is None:
            continue
        task.check_data(evaluation.targets, evaluation.names, "--eval: ")
        if task.comparable is not None and len(evaluation) > task.comparable:
            raise DataError(
                f"--eval holds {len(evaluation):,} samples, each compared with all the others, expected at most "
                f"{task.comparable:,}; give fewer"
            )


def checked_batches(task: Task, data: LabelledData, source: RowSource, settings: TrainingSettings) -> Sequence[Indices]:
    """The batches of the first epoch. Raises UsageError if the task would learn too little from them."""
    sampler = task.sampler(data.targets, settings)
    batches = source.epoch(sampler, 0).batches
    wrong = task.check_batches(batches, data.targets)
    if wrong is None:
        return batches
    where, remedy = "", "give a larger --batch-size, or fewer --group-samples"
    if task.check_batches(sampler.batches(source.lengths, 0), data.targets) is None:
        where, remedy = source.restriction, "add --in-memory, or give more --memory"
    raise UsageError(f"{where}{wrong}; {remedy}")
