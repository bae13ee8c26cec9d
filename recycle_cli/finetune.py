"""Train what comes after the cut: from the store, or without one from the inputs (the two baselines)."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from recycle_cli import runs
from recycle_cli.adapters import attach, merge, save_apart
from recycle_cli.batches import StoredRows
from recycle_cli.card import save_run
from recycle_cli.coverage import absent_from, covered
from recycle_cli.devices import autocast
from recycle_cli.errors import UsageError
from recycle_cli.heads import Head, Log, make_optimizer
from recycle_cli.inputs import Images, RawInputs, Source, order_digest, readable, stored_source
from recycle_cli.intake import Intake
from recycle_cli.keys import Sample
from recycle_cli.labelled import Labelled, read_labelled
from recycle_cli.models import takes_images, views_of
from recycle_cli.parity import check_parity
from recycle_cli.randomness import Randomness
from recycle_cli.reports import bar
from recycle_cli.settings import CorpusSettings, ModelSettings, TrainingSettings
from recycle_cli.setup import Setup, set_up
from recycle_cli.store import Store
from recycle_cli.tasks import text_classification as task
from recycle_cli.training import train


@dataclass(frozen=True)
class Finetuned:
    """What a training did. Times in seconds; `epoch_seconds` are those of training alone, without evaluation.

    `store_hit_share` is the share of the data that the store held before any of it was computed.
    """

    train_seconds: float
    epoch_seconds: list[float]
    samples_per_second: float
    metrics: dict[str, float]
    best_epoch: int
    output: str
    store_hit_share: float
    samples: int
    cut: str
    classes: list[str]


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
    if settings.metric not in task.METRICS:
        raise UsageError(f"--metric {settings.metric} is not known; take one of {', '.join(task.METRICS)}")
    store = None if job.store is None else Store.open(job.store)
    images = _of_images(job, model, store)
    views = views_of(settings.views, images=images)
    _refuse_idle_options(job, model, settings, images=images)
    corpus = Intake(job.data, labelled=True, images=images)
    data = read_labelled(corpus, keep=store is None, views=[] if store is None else views)
    corpus.tell()
    evaluation = _read_evaluation(job, data, images=images, keep=store is None)

    setup = set_up(store, model, job.cut, data.names, named=job.model_named, seed=settings.seed)
    held = 0.0
    if store is not None:
        held = 1 - float(absent_from(store, data).mean())
        data = covered(corpus.resolved, data, store, setup.split, setup.model, settings.on_missing, settings.views)
        if job.evaluation and evaluation:
            evaluation = covered(job.evaluation, evaluation, store, setup.split, setup.model, settings.on_missing)
        if settings.parity_check:
            check_parity(store, setup.split, setup.cut, data.probes, setup.device)
    elif images and job.data.on_error == "skip":
        data = data.take(readable(setup.split, data.samples, corpus.reject))
        corpus.tell()
    setup.split.freeze(setup.cut)
    if not (job.resume and (folder / runs.CHECKPOINT).exists()):
        runs.clear(folder)

    source = _source(setup, data, settings, views)
    tested = None if evaluation is None else _source(setup, evaluation, settings)
    with _logger(folder, tensorboard=job.tensorboard) as log, bar("finetune") as progress:
        head = _head(folder, setup, settings, (data, evaluation), source, log)
        train([head], source, tested, progress)
    report = _report(head, job, held)
    if settings.adapter.kind != "none":
        if settings.adapter.save == "apart":
            save_apart(setup.loaded, folder)
        merge(setup.split.model)
    save_run(folder, setup.loaded, _about(head, setup, report, job.task))
    return report


def _refuse_idle_options(job: Job, model: ModelSettings, settings: TrainingSettings, *, images: bool) -> None:
    """Raise UsageError for what could have no effect: it would be taken for done."""
    mixing = bool(settings.mixup or settings.cutmix)
    if mixing and (job.store is None or not images):
        raise UsageError("--mixup and --cutmix mix stored activations of images; give a STORE of images")
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
        raise UsageError(f"--task {job.task}: {job.store or model.name} takes {kind}; use --task {fitting}")
    return images


def _read_evaluation(job: Job, data: Labelled, *, images: bool, keep: bool) -> Labelled | None:
    if job.evaluation is None:
        return None
    corpus = Intake(job.evaluation, labelled=True, images=images)
    found = read_labelled(corpus, data.names, keep=keep)
    corpus.tell()
    return found


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
    setup: Setup,
    settings: TrainingSettings,
    data: tuple[Labelled, Labelled | None],
    source: Source,
    log: Log,
) -> Head:
    """A head about to train on the first of the data, judged by the second."""
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
        identity=_identity(setup, settings, *data, source),
        data=data[0],
        evaluation=data[1],
        log=log,
        buffers=dict(setup.split.head_buffers(setup.cut)),
    )


def _identity(
    setup: Setup, settings: TrainingSettings, data: Labelled, evaluation: Labelled | None, source: Source
) -> dict[str, Any]:
    """All that must be the same for a resumed run to go on as if it had never stopped."""
    free = ("save_steps", "parity_check", "memory", "in_memory")
    return {
        **{name: value for name, value in asdict(settings).items() if name not in free},
        "precision": setup.model.precision,
        "model": setup.model.name,
        "revision": setup.model.revision,
        "max_length": setup.split.recipe.max_length,
        "preprocessor": setup.split.recipe.preprocessor,
        "head_batchnorm": setup.model.images.head_batchnorm,
        "cut": setup.cut,
        "data": data.digest,
        "evaluation": evaluation.digest if evaluation is not None else None,
        "fingerprint": setup.split.recipe.fingerprint,
        "shuffled_order": order_digest(source, settings.batch_size, settings.seed),
    }


@contextmanager
def _logger(folder: Path, *, tensorboard: bool) -> Iterator[Log]:
    """A function that keeps a record of a step: a line of metrics.jsonl, and TensorBoard where it is installed."""
    board = _board(folder) if tensorboard else None
    with (folder / runs.LOG).open("a", encoding="utf-8") as lines:

        def log(record: Mapping[str, Any]) -> None:
            lines.write(json.dumps(record) + "\n")
            lines.flush()
            if board is not None:
                for name, value in {**record, **record.get("evaluation", {})}.items():
                    if isinstance(value, float):
                        board.add_scalar(
                            f"{'evaluation' if 'evaluation' in record else 'train'}/{name}", value, record["step"]
                        )

        try:
            yield log
        finally:
            if board is not None:
                board.close()


def _board(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder / "tensorboard"))


def _report(head: Head, job: Job, held: float) -> Finetuned:
    """The figures of a finished training; without evaluation the last training loss stands for the metrics."""
    state, samples = head.state, len(head.data)
    seconds = sum(state.epoch_seconds)
    return Finetuned(
        train_seconds=seconds,
        epoch_seconds=state.epoch_seconds,
        samples_per_second=samples * len(state.epoch_seconds) / seconds,
        metrics=state.best or {"train_loss": _last_loss(head.folder)},
        best_epoch=state.best_epoch or len(state.epoch_seconds),
        output=job.output,
        store_hit_share=held,
        samples=samples,
        cut=head.cut,
        classes=head.data.names,
    )


def _about(head: Head, setup: Setup, report: Finetuned, task_name: str) -> dict[str, Any]:
    """What `recycle.json` keeps: enough to predict with the RUN, and to tell how it was made."""
    store = setup.store
    return {
        "task": task_name,
        "model": setup.model.name,
        "revision": setup.model.revision,
        "max_length": head.split.recipe.max_length,
        "cut": head.cut,
        "fingerprint": store.fingerprint if store is not None else None,
        "recipe": store.recipe.to_json() if store is not None else None,
        "store": store.path if store is not None else None,
        "data": head.data.digest,
        "settings": head.identity,
        "report": asdict(report),
    }


def _last_loss(folder: Path) -> float:
    last = (folder / runs.LOG).read_text(encoding="utf-8").splitlines()[-1]
    return float(json.loads(last)["loss"])
