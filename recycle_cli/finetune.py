"""Train what comes after the cut: from the store, or without one from the inputs (the two baselines)."""

import json
from collections.abc import Callable, Iterator, Mapping
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
from recycle_cli.coverage import covered
from recycle_cli.devices import autocast
from recycle_cli.errors import UsageError
from recycle_cli.inputs import RawInputs, Source
from recycle_cli.intake import Intake
from recycle_cli.labelled import Labelled, read_labelled
from recycle_cli.parity import check_parity
from recycle_cli.reports import bar
from recycle_cli.settings import CorpusSettings, ModelSettings, TrainingSettings
from recycle_cli.setup import Setup, set_up
from recycle_cli.store import Store
from recycle_cli.tasks import text_classification as task
from recycle_cli.training import Trainer, make_optimizer, train


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
    corpus = Intake(job.data, labelled=True)
    data = read_labelled(corpus, keep=store is None)
    evaluation = _read_evaluation(job, data, keep=store is None)

    setup = set_up(store, model, job.cut, data.names, named=job.model_named, seed=settings.seed)
    held = 0.0
    if store is not None:
        held = float((store.lookup(data.keys, data.digests) >= 0).mean())
        data = covered(job.data, data, store, setup.split, setup.model, settings.on_missing)
        if job.evaluation and evaluation:
            evaluation = covered(job.evaluation, evaluation, store, setup.split, setup.model, settings.on_missing)
        if settings.parity_check:
            check_parity(store, setup.split, setup.cut, data.probes, setup.model, setup.device)
    setup.split.freeze(setup.cut)
    if not job.resume:
        runs.clear(folder)

    trainer = _trainer(folder, setup, settings, data, evaluation)
    source = _source(setup, data)
    tested = None if evaluation is None else (_source(setup, evaluation), evaluation)
    with _logger(folder, tensorboard=job.tensorboard) as log, bar("finetune") as progress:
        state = train(trainer, source, data, tested, log, progress)
    report = _report(trainer, job, held, data, state)
    if settings.adapter.kind != "none":
        if settings.adapter.save == "apart":
            save_apart(setup.loaded, folder)
        merge(setup.split.model)
    save_run(folder, setup.loaded, _about(trainer, setup, data, report))
    return report


def _read_evaluation(job: Job, data: Labelled, *, keep: bool) -> Labelled | None:
    if job.evaluation is None:
        return None
    return read_labelled(Intake(job.evaluation, labelled=True), data.names, keep=keep)


def _source(setup: Setup, data: Labelled) -> Source:
    if setup.store is None:
        return RawInputs.of(setup.split, data.samples)
    return StoredRows.of(setup.store, setup.cut, setup.store.lookup(data.keys, data.digests))


def _trainer(
    folder: Path, setup: Setup, settings: TrainingSettings, data: Labelled, evaluation: Labelled | None
) -> Trainer:
    torch.manual_seed(settings.seed)
    weights = dict(setup.split.head_parameters(setup.cut))
    if settings.adapter.kind != "none":
        weights = attach(setup.loaded, setup.split, setup.cut, settings.adapter)
    torch.manual_seed(settings.seed)
    scaling = setup.model.precision == "float16" and setup.device.type == "cuda"
    return Trainer(
        split=setup.split,
        cut=setup.cut,
        weights=weights,
        optimizer=make_optimizer(weights, settings),
        scaler=torch.amp.GradScaler(setup.device.type, enabled=scaling),
        device=setup.device,
        autocast=partial(autocast, setup.device, setup.model.precision),
        folder=folder,
        settings=settings,
        identity=_identity(setup, settings, data, evaluation),
    )


def _identity(setup: Setup, settings: TrainingSettings, data: Labelled, evaluation: Labelled | None) -> dict[str, Any]:
    """All that must be the same for a resumed run to go on as if it had never stopped."""
    free = ("save_steps", "parity_check")
    return {
        **{name: value for name, value in asdict(settings).items() if name not in free},
        "precision": setup.model.precision,
        "model": setup.model.name,
        "revision": setup.model.revision,
        "max_length": setup.split.recipe.max_length,
        "cut": setup.cut,
        "data": data.digest,
        "evaluation": evaluation.digest if evaluation is not None else None,
        "fingerprint": setup.store.fingerprint if setup.store else None,
    }


@contextmanager
def _logger(folder: Path, *, tensorboard: bool) -> Iterator[Callable[[Mapping[str, Any]], None]]:
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

        yield log
    if board is not None:
        board.close()


def _board(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder / "tensorboard"))


def _report(trainer: Trainer, job: Job, held: float, data: Labelled, state: runs.Progress) -> Finetuned:
    """The figures of a finished training; without evaluation the last training loss stands for the metrics."""
    seconds = sum(state.epoch_seconds)
    return Finetuned(
        train_seconds=seconds,
        epoch_seconds=state.epoch_seconds,
        samples_per_second=len(data) * len(state.epoch_seconds) / seconds,
        metrics=state.best or {"train_loss": _last_loss(trainer.folder)},
        best_epoch=state.best_epoch or len(state.epoch_seconds),
        output=job.output,
        store_hit_share=held,
        samples=len(data),
        cut=trainer.cut,
        classes=data.names,
    )


def _about(trainer: Trainer, setup: Setup, data: Labelled, report: Finetuned) -> dict[str, Any]:
    """What `recycle.json` keeps: enough to predict with the RUN, and to tell how it was made."""
    store = setup.store
    return {
        "task": "text-classification",
        "model": setup.model.name,
        "revision": setup.model.revision,
        "max_length": trainer.split.recipe.max_length,
        "cut": trainer.cut,
        "fingerprint": store.fingerprint if store is not None else None,
        "recipe": store.recipe.to_json() if store is not None else None,
        "store": store.path if store is not None else None,
        "data": data.digest,
        "settings": trainer.identity,
        "report": asdict(report),
    }


def _last_loss(folder: Path) -> float:
    last = (folder / runs.LOG).read_text(encoding="utf-8").splitlines()[-1]
    return float(json.loads(last)["loss"])
