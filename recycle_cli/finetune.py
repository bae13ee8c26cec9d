"""Train what comes after the cut: from the store, or without one from the inputs (the two baselines)."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from recycle_cli import runs
from recycle_cli.batches import StoredRows
from recycle_cli.card import save_run
from recycle_cli.coverage import covered, expect
from recycle_cli.devices import autocast, device_of
from recycle_cli.errors import MismatchError, UsageError
from recycle_cli.inputs import RawInputs, Source
from recycle_cli.intake import Intake
from recycle_cli.labelled import Labelled, read_labelled
from recycle_cli.models import Loaded, SplitModel, default_max_length, load, resolve_cut, split
from recycle_cli.parity import check_parity
from recycle_cli.reports import bar
from recycle_cli.settings import CorpusSettings, ModelSettings, TrainingSettings
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

    model, loaded, halves, cut = _split_for(job, model, store, data.names, settings.seed)
    device = device_of(model.device)
    halves.model.to(device)
    held = 0.0
    if store is not None:
        held = float((store.lookup(data.keys, data.digests) >= 0).mean())
        data = covered(job.data, data, store, halves, model, settings.on_missing)
        if job.evaluation and evaluation:
            evaluation = covered(job.evaluation, evaluation, store, halves, model, settings.on_missing)
        if settings.parity_check:
            check_parity(store, halves, cut, data.probes, model, device)
    halves.freeze(cut)
    if not job.resume:
        runs.clear(folder)

    trainer = _trainer(folder, halves, cut, device, model, settings, data, evaluation, store)
    source = _source(store, halves, cut, data)
    tested = None if evaluation is None else (_source(store, halves, cut, evaluation), evaluation)
    with _logger(folder, tensorboard=job.tensorboard) as log, bar("finetune") as progress:
        state = train(trainer, source, data, tested, log, progress)
    report = _report(trainer, job, held, data, state)
    save_run(folder, loaded, _about(trainer, model, store, data, report))
    return report


def _read_evaluation(job: Job, data: Labelled, *, keep: bool) -> Labelled | None:
    if job.evaluation is None:
        return None
    return read_labelled(Intake(job.evaluation, labelled=True), data.names, keep=keep)


def _split_for(
    job: Job, model: ModelSettings, store: Store | None, names: list[str], seed: int
) -> tuple[ModelSettings, Loaded, SplitModel, str]:
    """The model in two halves: cut as the store was made, or as asked for where there is no store."""
    if store is None:
        if job.cut is None:
            raise UsageError("without a STORE, name the --cut to train from (0 trains the whole model)")
        cuts: tuple[str, ...] = (job.cut,)
        dtype = "float32"
    else:
        if not job.model_named:
            model = replace(model, name=store.provenance["model"], revision=store.provenance.get("revision"))
        if model.max_length is None:
            model = replace(model, max_length=store.recipe.max_length)
        cuts, dtype = tuple(store.recipe.cuts), store.recipe.dtype
    loaded = load(
        model.name, labels=names, revision=model.revision, trust_remote_code=model.trust_remote_code, seed=seed
    )
    halves = split(loaded, cuts, max_length=model.max_length or default_max_length(loaded), dtype=dtype)
    if store is not None:
        expect(store, halves.recipe)
    return model, loaded, halves, _chosen_cut(job, halves, store)


def _chosen_cut(job: Job, halves: SplitModel, store: Store | None) -> str:
    if job.cut is not None:
        cut = resolve_cut(job.cut, halves.blocks)
        if cut not in halves.cuts:
            held = ", ".join(halves.cuts)
            raise MismatchError(
                f"{job.store} holds the cut {held}, not {cut}; name that, or precompute a store at {cut}"
            )
        return cut
    if len(halves.cuts) > 1:
        raise UsageError(f"{job.store} holds the cuts {', '.join(halves.cuts)}; choose one with --cut")
    return halves.cuts[0]


def _source(store: Store | None, halves: SplitModel, cut: str, data: Labelled) -> Source:
    if store is None:
        return RawInputs.of(halves, data.samples)
    return StoredRows.of(store, cut, store.lookup(data.keys, data.digests))


def _trainer(
    folder: Path,
    halves: SplitModel,
    cut: str,
    device: torch.device,
    model: ModelSettings,
    settings: TrainingSettings,
    data: Labelled,
    evaluation: Labelled | None,
    store: Store | None,
) -> Trainer:
    weights = dict(halves.head_parameters(cut))
    scaling = model.precision == "float16" and device.type == "cuda"
    identity = {
        **{name: value for name, value in asdict(settings).items() if name not in ("save_steps", "parity_check")},
        "precision": model.precision,
        "model": model.name,
        "revision": model.revision,
        "max_length": halves.recipe.max_length,
        "cut": cut,
        "data": data.digest,
        "evaluation": evaluation.digest if evaluation is not None else None,
        "fingerprint": store.fingerprint if store else None,
    }
    torch.manual_seed(settings.seed)
    return Trainer(
        split=halves,
        cut=cut,
        weights=weights,
        optimizer=make_optimizer(weights, settings),
        scaler=torch.amp.GradScaler(device.type, enabled=scaling),
        device=device,
        autocast=partial(autocast, device, model.precision),
        folder=folder,
        settings=settings,
        identity=identity,
    )


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


def _about(
    trainer: Trainer, model: ModelSettings, store: Store | None, data: Labelled, report: Finetuned
) -> dict[str, Any]:
    """What `recycle.json` keeps: enough to predict with the RUN, and to tell how it was made."""
    return {
        "task": "text-classification",
        "model": model.name,
        "revision": model.revision,
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
