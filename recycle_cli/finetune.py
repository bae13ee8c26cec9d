"""Train what comes after the cut: from the store, or without one from the inputs (the two baselines)."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from recycle_cli import runs
from recycle_cli.adapters import attach
from recycle_cli.batches import StoredRows
from recycle_cli.coverage import absent_from, covered
from recycle_cli.devices import autocast
from recycle_cli.errors import UsageError
from recycle_cli.heads import Head, make_optimizer
from recycle_cli.inputs import Images, RawInputs, Source, order_digest, readable, stored_source
from recycle_cli.intake import Intake
from recycle_cli.keys import Sample
from recycle_cli.labelled import Labelled, read_targets, take_all
from recycle_cli.logs import Log, logger
from recycle_cli.models import refuse_foreign, takes_images, views_of
from recycle_cli.parity import check_parity
from recycle_cli.randomness import Randomness
from recycle_cli.reports import bar
from recycle_cli.settings import CorpusSettings, HeadSettings, ModelSettings, TrainingSettings
from recycle_cli.setup import Setup, set_up, share_trunk
from recycle_cli.store import Store
from recycle_cli.tasks import text_classification as task
from recycle_cli.trained import Finetuned, FinetunedHeads, leave_run, together
from recycle_cli.training import train

Views = Sequence[Callable[[Sample], Sample]]


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


def finetune(job: Job, model: ModelSettings, settings: TrainingSettings) -> Finetuned:
    """Fine-tune on a labelled corpus and leave a RUN: an ordinary checkpoint of trunk and head."""
    folder = runs.claim(job.output, overwrite=job.overwrite, resume=job.resume)
    (report,) = _train(job, model, {folder: HeadSettings("", settings)}, {})
    return report


def finetune_heads(job: Job, model: ModelSettings, heads: Sequence[HeadSettings]) -> FinetunedHeads:
    """Fine-tune several heads on the same batches, each read once from the store; leave a RUN of each in OUTPUT/name.

    Each head is trained as it would be alone, in the same order of the samples; where they have several columns of
    labels, it passes over those that lack its own. A resume leaves alone the heads that are finished, which
    must have been trained with the same settings on the same data.
    """
    if job.store is None:
        raise UsageError("--heads trains several heads from one read of a STORE; give one, or train them one by one")
    if runs.is_run(job.output):
        raise UsageError(f"{job.output} is a run itself; choose another --output for the runs of several heads")
    for head in heads:
        if head.name.lower() in runs.OWN:
            raise UsageError(f"head {head.name!r}: a RUN has a file of this name, and OUTPUT is none; name it anew")
    targets = partial(_with_targets, columns=tuple(dict.fromkeys(head.label_column for head in heads)))
    job = replace(job, data=targets(job.data), evaluation=job.evaluation and targets(job.evaluation))
    folders = {head.name: Path(job.output, head.name) for head in heads}
    reports = {name: runs.report(folder) for name, folder in folders.items() if job.resume and runs.is_finished(folder)}
    asked = [head for head in heads if head.name not in reports]
    if not asked:
        raise UsageError(f"all heads in {job.output} are finished; there is nothing to resume")
    claimed = {runs.claim(str(folders[head.name]), overwrite=job.overwrite, resume=job.resume): head for head in asked}
    finished = {folders[head.name]: head for head in heads if head.name in reports}
    for head, report in zip(asked, _train(job, model, claimed, finished), strict=True):
        reports[head.name] = asdict(report)
    return together({name: reports[name] for name in folders}, job.output, resumed=job.resume)


def _with_targets(corpus: CorpusSettings, columns: tuple[str | None, ...]) -> CorpusSettings:
    """The corpus with these columns of labels; None: the one that is found where it is obvious."""
    if len(columns) == 1:
        return replace(corpus, label_column=columns[0])
    named = tuple(column for column in columns if column is not None)
    if len(named) < len(columns):
        raise UsageError(f"one head names no label-column, another {named[0]!r}; name it for each of them")
    return replace(corpus, label_column=None, label_columns=named)


def _train(
    job: Job,
    model: ModelSettings,
    heads: Mapping[Path, HeadSettings],
    finished: Mapping[Path, HeadSettings],
) -> list[Finetuned]:
    """Train heads on the same batches and leave each one's RUN in its folder, beside those that are finished."""
    settings = [head.training for head in heads.values()]
    shared = settings[0]
    store = None if job.store is None else Store.open(job.store)
    images = _of_images(job, model, store)
    views = views_of(shared.views, images=images)
    for one in settings:
        _refuse_idle_options(job, model, one, images=images)
    corpus = Intake(job.data, labelled=True, images=images)
    corpus.tell_columns()
    data, tested = _read(job, corpus, [*heads.values(), *finished.values()], views, keep=store is None, images=images)

    setups = _set_up(job, model, store, data[: len(heads)], settings)
    setup, held = setups[0], 0.0
    if store is not None:
        held = 1 - float(absent_from(store, data[0]).mean())
        data = covered(corpus.resolved, data, store, setup.split, setup.model, shared.on_missing, shared.views)
        if job.evaluation and tested:
            tested = covered(job.evaluation, tested, store, setup.split, setup.model, shared.on_missing)
        if shared.parity_check:
            check_parity(store, setup.split, setup.cut, data[0].probes, setup.device)
    elif images and job.data.on_error == "skip":
        data = take_all(data, readable(setup.split, data[0].samples, corpus.reject))
        corpus.tell()
    source = _source(setup, data[0], shared, views)
    order = order_digest(source, shared.batch_size, shared.shuffle_seed)
    judged: Sequence[Labelled | None] = tested or [None] * len(data)
    pairs = list(zip(data, judged, strict=True))
    for (folder, head), pair in zip(finished.items(), pairs[len(heads) :], strict=True):
        runs.check_settings(folder, _identity(setup, head.training, pair, order))
    for folder in heads:
        if not (job.resume and (folder / runs.CHECKPOINT).exists()):
            runs.clear(folder)
    with ExitStack() as stack:
        progress = stack.enter_context(bar("finetune"))
        pupils = [
            _head(folder, heads[folder], own, pair, order, stack.enter_context(logger(folder, job.tensorboard)))
            for folder, own, pair in zip(heads, setups, pairs[: len(heads)], strict=True)
        ]
        train(pupils, source, _source(setup, tested[0], shared) if tested else None, progress)
    return [leave_run(head, own, job.task, held) for head, own in zip(pupils, setups, strict=True)]


def _read(
    job: Job, corpus: Intake, heads: Sequence[HeadSettings], views: Views, *, keep: bool, images: bool
) -> tuple[list[Labelled], list[Labelled] | None]:
    """The samples to train on and those to evaluate on, if any, with each head's labels."""
    columns = [head.label_column if job.data.label_columns else None for head in heads]
    found = dict.fromkeys(columns)
    data = dict(zip(found, read_targets(corpus, found, keep=keep, views=() if keep else views), strict=True))
    corpus.tell()
    if job.evaluation is None:
        return [data[column] for column in columns], None
    judges = Intake(job.evaluation, labelled=True, images=images)
    known = {column: one.names for column, one in data.items()}
    tested = dict(zip(known, read_targets(judges, known, keep=keep), strict=True))
    judges.tell()
    return [data[column] for column in columns], [tested[column] for column in columns]


def _set_up(
    job: Job,
    model: ModelSettings,
    store: Store | None,
    data: Sequence[Labelled],
    settings: Sequence[TrainingSettings],
) -> list[Setup]:
    """A model for each head, trunk frozen, which is in memory once."""
    setups: list[Setup] = []
    for labelled, one in zip(data, settings, strict=True):
        setup = set_up(store, model, job.cut, labelled.names, named=job.model_named, seed=one.seed)
        if setups:
            share_trunk(setups[0], setup)
        setup.split.freeze(setup.cut)
        setups.append(setup)
    return setups


def _refuse_idle_options(job: Job, model: ModelSettings, settings: TrainingSettings, *, images: bool) -> None:
    """Raise UsageError for what could have no effect: it would be taken for done."""
    if settings.metric not in task.METRICS:
        raise UsageError(f"--metric {settings.metric} is not known; take one of {', '.join(task.METRICS)}")
    refuse_foreign(model, job.store or model.name, images=images)
    mixing = bool(settings.mixup or settings.cutmix)
    if mixing and (job.store is None or not images):
        raise UsageError("--mixup and --cutmix mix stored activations of images; give a STORE of images")
    if settings.adapter.kind == "bottleneck" and settings.adapter.save != "apart":
        raise UsageError(
            "--adapter bottleneck cannot be merged into an ordinary checkpoint; add --adapter-save apart, and predict "
            "with `recycle predict`"
        )
    if images and settings.adapter.kind != "none":
        raise UsageError(f"--adapter {settings.adapter.kind}: only text models take adapters; leave the option out")
    if job.store is None and (settings.in_memory or settings.memory is not None):
        raise UsageError("--memory and --in-memory say how a STORE is read; give one, or leave them out")
    if settings.in_memory and settings.memory is not None:
        raise UsageError("--in-memory reads all at once, --memory in windows; give one of the two")
    if job.store is not None and model.revision is not None and not job.model_named:
        raise UsageError(f"--revision {model.revision}: name the --model it belongs to; else the store's own is taken")


def _of_images(job: Job, model: ModelSettings, store: Store | None) -> bool:
    """Whether the data are images. Raises UsageError where the task is of another kind than the model or the store."""
    images = takes_images(model) if store is None or job.model_named else store.recipe.modality == "image"
    if images != (job.task == "image-classification"):
        kind, fitting = ("images", "image-classification") if images else ("texts", "text-classification")
        taker = job.store if store is not None and not job.model_named else model.name
        raise UsageError(f"--task {job.task}: {taker} takes {kind}; use --task {fitting}")
    return images


def _source(
    setup: Setup, data: Labelled, settings: TrainingSettings, views: Sequence[Callable[[Sample], Sample]] = ()
) -> Source:
    store = setup.store
    if store is not None:
        places = tuple(store.lookup(keys, digests) for keys, digests in data.views)
        rows = StoredRows.of(store, setup.cut, store.lookup(data.keys, data.digests), places)
        return stored_source(rows, settings.memory, in_memory=settings.in_memory)
    if setup.split.recipe.modality == "image":
        return Images.of(setup.split, data.samples, views)
    return RawInputs.of(setup.split, data.samples)


def _head(
    folder: Path,
    asked: HeadSettings,
    setup: Setup,
    data: tuple[Labelled, Labelled | None],
    order: str,
    log: Log,
) -> Head:
    """A head about to train on the first of the data, judged by the second."""
    settings = asked.training
    torch.manual_seed(settings.seed)
    weights = dict(setup.split.head_parameters(setup.cut))
    if settings.adapter.kind != "none":
        weights = attach(setup.loaded, setup.split, setup.cut, settings.adapter)
    scaling = setup.model.precision == "float16" and setup.device.type == "cuda"
    return Head(
        split=setup.split,
        cut=setup.cut,
        weights=weights,
        optimizer=make_optimizer(weights, settings),
        scaler=torch.amp.GradScaler(setup.device.type, enabled=scaling),
        autocast=partial(autocast, setup.device, setup.model.precision),
        randomness=Randomness(settings.seed, setup.device),
        folder=folder,
        settings=settings,
        identity=_identity(setup, settings, data, order),
        data=data[0],
        evaluation=data[1],
        log=log,
        buffers=dict(setup.split.head_buffers(setup.cut)),
        name=asked.name,
    )


def _identity(
    setup: Setup, settings: TrainingSettings, data: tuple[Labelled, Labelled | None], order: str
) -> dict[str, Any]:
    """All that must be the same for a resumed run to go on as if it had never stopped."""
    free = ("save_steps", "parity_check", "memory", "in_memory")
    return {
        **{name: value for name, value in asdict(settings).items() if name not in free},
        "order_seed": settings.shuffle_seed,
        "precision": setup.model.precision,
        "model": setup.model.name,
        "revision": setup.model.revision,
        "max_length": setup.split.recipe.max_length,
        "preprocessor": setup.split.recipe.preprocessor,
        "head_batchnorm": setup.model.images.head_batchnorm,
        "cut": setup.cut,
        "data": data[0].digest,
        "evaluation": data[1].digest if data[1] is not None else None,
        "fingerprint": setup.split.recipe.fingerprint,
        "shuffled_order": order,
    }
