"""Train the layers after the cut: from the store, or without one from the inputs (the two baselines)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar, cast

from recycle_cli import runs
from recycle_cli.batches import RowSource, order_digest
from recycle_cli.corpus import paths_of
from recycle_cli.disk import Read, expanded, keep_apart
from recycle_cli.errors import UsageError
from recycle_cli.models import NamedModel, TaskLayer, views_of
from recycle_cli.reports import bar, fall_silent
from recycle_cli.runs import RunFolder
from recycle_cli.runtime.devices import device_of
from recycle_cli.runtime.ranks import Ranks, joined
from recycle_cli.settings import CorpusSettings, HeadSettings, Job, ModelSettings, TrainingSettings, config_of
from recycle_cli.store import Store
from recycle_cli.tasks import Task
from recycle_cli.training import (
    Destination,
    Finetuned,
    FinetunedHeads,
    Origin,
    Setup,
    StatesHead,
    Trainer,
    TrainingData,
    begin_as,
    check_alone,
    check_data,
    check_heads,
    check_parallel,
    check_sources,
    checked_batches,
    identity_of,
    is_solved,
    leave_run,
    modality_asked,
    new_trainer,
    prove_network,
    prove_training,
    read_data,
    refuse_idle_options,
    set_up,
    set_up_states,
    share_out,
    solve,
    source_of,
    task_asked,
    together,
    train,
    usable_data,
)
from recycle_cli.trunk import reused_from
from recycle_cli.verbs.required import check_figures, refuse_unmeasured

T = TypeVar("T")


@dataclass(frozen=True)
class Request:
    """What a command trains.

    heads     the heads to train, by the places of their RUNs
    finished  the heads that an earlier command has finished, by the folders of their RUNs
    ranks     the processes that train together; None for one alone
    """

    job: Job
    model: NamedModel
    heads: Mapping[RunFolder, HeadSettings]
    finished: Mapping[Path, HeadSettings]
    ranks: Ranks | None = None

    @property
    def writes(self) -> bool:
        """Whether this process writes the RUNs: of several that train together the first."""
        return self.ranks is None or self.ranks.first

    @property
    def settings(self) -> list[TrainingSettings]:
        """How each head is trained."""
        return [head.training for head in self.heads.values()]

    @property
    def columns(self) -> list[str | None]:
        """The column of labels of each head, those of the finished ones last."""
        return [head.label_column for head in (*self.heads.values(), *self.finished.values())]


def finetune(job: Job, model: ModelSettings, settings: TrainingSettings) -> Finetuned:
    """Fine-tune on a labelled corpus and leave a RUN: an ordinary checkpoint of trunk and head.

    If torchrun has started several processes for it they do together what one would do, and the first one writes.
    Raises BarError, with the report, if the RUN misses what the job requires.
    """
    _keep_apart(job, model.name, settings.freezing.plot)
    with _ranks(job, model, [settings]) as ranks:
        place = _of_first(ranks, partial(_claimed, job))
        (report,) = _train(Request(job, NamedModel(model), {place: HeadSettings("", settings)}, {}, ranks))
    check_figures(report, job.require)
    return report


@contextmanager
def _ranks(job: Job, model: ModelSettings, settings: Sequence[TrainingSettings]) -> Iterator[Ranks | None]:
    """The processes that train together, of which only the first shows anything; None for one alone."""
    with joined(device_of(model.device)) as ranks:
        if ranks is not None:
            if not ranks.first:
                fall_silent()
            check_parallel(job, settings)
        else:
            check_alone(settings)
        yield ranks


def _of_first(ranks: Ranks | None, do: Callable[[], T]) -> T:
    """What the first of the processes comes to, which alone reads and writes the folders of RUNs."""
    if ranks is None:
        return do()
    return ranks.told(do() if ranks.first else cast(T, None))


def _claimed(job: Job) -> RunFolder:
    """The folder of the RUN, after what an earlier command has left half done."""
    runs.recover(job.output)
    return runs.claim(job.output, overwrite=job.overwrite, resume=job.resume)


def finetune_heads(job: Job, model: ModelSettings, heads: Sequence[HeadSettings]) -> FinetunedHeads:
    """Fine-tune several heads on the same batches, each read once from the store; leave a RUN of each in OUTPUT/name.

    Each head is trained as it would be alone, in the same order of the samples; if they have several columns of labels,
    it passes over the records that lack its own. A resume leaves alone the heads that are finished, which must have
    been trained with the same settings on the same data. Raises BarError, with the report, if a head misses what the
    job requires.
    """
    if job.reuse is not None:
        raise UsageError("--reuse: the model runs whole, so that heads share nothing; train them one by one")
    if job.store is None:
        raise UsageError("--heads trains several heads from one read of a STORE; give one, or train them one by one")
    if runs.is_run(job.output):
        raise UsageError(f"{job.output} is a run itself; choose another --output for the runs of several heads")
    check_heads(heads)
    _keep_apart(job, model.name)
    labelled = partial(_with_labels, columns=tuple(dict.fromkeys(head.label_column for head in heads)))
    job = replace(job, data=labelled(job.data), evaluation=job.evaluation and labelled(job.evaluation))
    with _ranks(job, model, [head.training for head in heads]) as ranks:
        claimed, reports = _of_first(ranks, partial(_claimed_heads, job, heads))
        folders = {head.name: Path(expanded(job.output), head.name) for head in heads}
        finished = {folders[head.name]: head for head in heads if head.name in reports}
        names = [head.name for head in claimed.values()]
        for name, report in zip(names, _train(Request(job, NamedModel(model), claimed, finished, ranks)), strict=True):
            reports[name] = asdict(report)
    trained = together({name: reports[name] for name in folders}, job.output, resumed=job.resume)
    check_figures(trained, job.require)
    return trained


def _claimed_heads(
    job: Job, heads: Sequence[HeadSettings]
) -> tuple[dict[RunFolder, HeadSettings], dict[str, dict[str, Any]]]:
    """The heads to train by the folders of their RUNs, and the reports of those that are finished already."""
    folders = {head.name: Path(expanded(job.output), head.name) for head in heads}
    for folder in folders.values():
        runs.recover(str(folder))
    reports = {
        name: dict(runs.read_info(folder).report)
        for name, folder in folders.items()
        if job.resume and runs.is_finished(folder) and not runs.is_to_be_replaced(folder)
    }
    asked = [head for head in heads if head.name not in reports]
    if not asked:
        raise UsageError(f"all heads in {job.output} are finished; there is nothing to resume")
    places = {runs.claim(str(folders[one.name]), overwrite=job.overwrite, resume=job.resume): one for one in asked}
    return places, reports


def _keep_apart(job: Job, model: str, picture: str | None = None) -> None:
    """Raise UsageError if the RUN, or the picture of its training, would be written over what is read."""
    sources = [*job.data.source, *(job.evaluation.source if job.evaluation else ())]
    read = [*paths_of(sources), Read(model)]
    stores = [Read(store, whole=True) for store in (job.store, job.reuse, job.head_init) if store]
    written = {"--output": job.output} if picture is None else {"--output": job.output, "--freeze-plot": picture}
    keep_apart([*read, *stores], written)


def _with_labels(corpus: CorpusSettings, columns: tuple[str | None, ...]) -> CorpusSettings:
    """The corpus with these columns of labels; None: the one that is found if it is obvious."""
    if len(columns) == 1:
        return replace(corpus, label_column=columns[0] or corpus.label_column)
    named = tuple(column for column in columns if column is not None)
    if len(named) < len(columns):
        raise UsageError(f"one head names no label-column, another {named[0]!r}; name it for each of them")
    return replace(corpus, label_column=None, label_columns=named)


def _train(request: Request) -> list[Finetuned]:
    """Train heads on the same batches and leave each one's RUN in its folder, beside those that are finished."""
    job, model, settings = request.job, request.model, request.settings
    check_sources(job)
    runs.check_trackers(job.log)
    store = None if job.store is None else Store.open(job.store)
    modality = modality_asked(job, model, store)
    taker = job.store if job.store is not None and not job.model_named else model.name
    tasks = [task_asked(job, taker, modality, one) for one in settings]
    _refuse_unmeasured(request, tasks[0])
    for one in settings:
        refuse_idle_options(job, model, one, modality)
    views = views_of(settings[0].views, modality)
    if store is not None:
        model = model.found_again(store.provenance, store.recipe, named=job.model_named)
    if job.reuse is not None:
        model = replace(model, reused=reused_from(job.reuse, model))
        job = replace(job, cut=job.cut or "0")

    data = read_data(job, tasks[0], request.columns, cache(model.preprocessor), views)
    check_data(tasks[0], data.pairs)
    layers = [task.layer(one.names) for task, one in zip(tasks, data.train.data, strict=False)]
    if settings[0].layers.reads_states:
        setups = set_up_states(job, store, model, len(settings), pooled=settings[0].layers.kind == "pooled")
    else:
        setups = set_up(job, store, model, zip(layers, (one.seed for one in settings), strict=True))
    with _turns(request.ranks, settings[0], setups[0]):
        data = usable_data(data, job, tasks[0], setups[0], settings[0], views)
    check_data(tasks[0], data.pairs)  # of what --on-missing skip has left
    source = source_of(setups[0], data.train.data[0], settings[0], views)
    order = order_digest(checked_batches(tasks[0], data.train.data[0], source, settings[0]))

    with ExitStack() as held:
        trainers = _trainers(request, tasks, setups, data, order)
        if job.head_init is not None:
            begin_as(trainers, job.head_init, job.task, store)
        _fit(request, trainers, list(zip(setups, layers, strict=True)), data, source, held)
        leave = [
            partial(leave_run, trainer, own, job, _origin(request, place.output, head, data), place)
            for trainer, own, (place, head) in zip(trainers, setups, request.heads.items(), strict=True)
        ]
        return _of_first(request.ranks, lambda: [one() for one in leave])


@contextmanager
def _turns(ranks: Ranks | None, settings: TrainingSettings, setup: Setup) -> Iterator[None]:
    """If the block fills the store, the first of several processes runs it, and the others then find what it lacked."""
    if ranks is None or settings.on_missing != "compute":
        yield
        return
    with ranks.in_turn():
        if not ranks.first and setup.held is not None:
            setup.held.store.refresh()
        yield


def _origin(request: Request, folder: Path, head: HeadSettings, data: TrainingData) -> Origin:
    """Where a head comes from, with what would train it alone."""
    job, columns = request.job, data.train.corpus.columns.single
    label = head.label_column or columns.get("label")
    alone = replace(
        job, output=str(folder), data=replace(job.data, label_column=head.label_column or job.data.label_column)
    )
    config = config_of(alone, request.model.settings, head.training)
    return Origin(columns if label is None else {**columns, "label": label}, data.held, config)


def _refuse_unmeasured(request: Request, task: Task) -> None:
    evaluated = request.job.evaluation is not None
    metrics, where = (task.metrics, "here") if evaluated else (("train_loss",), "without --eval")
    names = [head.name for head in (*request.heads.values(), *request.finished.values()) if head.name]
    refuse_unmeasured(request.job.require, metrics, Finetuned, names, where)


def _trainers(
    request: Request, tasks: Sequence[Task], setups: Sequence[Setup], data: TrainingData, order: str
) -> list[Trainer]:
    """A trainer for each head. Raises UsageError if a finished head was trained in another way.

    `order`: the digest of the first epoch's batches.
    """
    job, pairs = request.job, data.pairs
    for (folder, head), pair in zip(request.finished.items(), pairs[len(request.heads) :], strict=True):
        task = task_asked(job, "", setups[0].split.recipe.modality, head.training)
        runs.check_settings(folder, identity_of(job, setups[0], head.training, task, pair, order))
    return [
        new_trainer(
            setup,
            head.training,
            task,
            pair,
            Destination(place.work, identity_of(job, setup, head.training, task, pair, order), name=head.name),
        )
        for (place, head), setup, task, pair in zip(request.heads.items(), setups, tasks, pairs, strict=False)
    ]


def _fit(
    request: Request,
    trainers: Sequence[Trainer],
    models: Sequence[tuple[Setup, TaskLayer]],
    data: TrainingData,
    source: RowSource,
    held: ExitStack,
) -> None:
    """Train the heads, which have their best weights in place afterwards.

    `held` keeps other processes out of the folders of the RUNs until it is closed.
    """
    job, setup = request.job, models[0][0]
    evaluation = None if data.evaluation is None else source_of(setup, data.evaluation.data[0], request.settings[0])
    batches = source.epoch(trainers[0].sampler, 0).batches
    for trainer in trainers:
        trainer.check_labels(batches)
    solved = [trainer for trainer in trainers if is_solved(trainer.task, trainer.settings)]
    trained = [trainer for trainer in trainers if trainer not in solved]
    _settle(trained, source)
    if request.writes:
        _prove(models, trainers, data)
        # Not before all that can be refused has been: an unfinished RUN that is not resumed is lost here.
        for place, trainer in zip(request.heads, trainers, strict=True):
            held.enter_context(runs.begin(place, trainer.identity, resume=job.resume))
    with ExitStack() as stack:
        progress = stack.enter_context(bar("finetune"))
        if request.writes:
            for place, trainer in zip(request.heads, trainers, strict=True):
                trainer.log = stack.enter_context(_log(job, trainer, place))
            if solved:  # by the first of several processes alone, from all of the rows
                solve(solved, source, evaluation, progress)
        if request.ranks is not None:
            request.ranks.wait()  # until the first has begun
            source, evaluation = share_out(trained, source, evaluation, request.ranks)
        if trained:
            train(trained, source, evaluation, progress)


def _log(job: Job, trainer: Trainer, place: RunFolder) -> AbstractContextManager[runs.Log]:
    """The log of a training."""
    about = {**trainer.identity, "samples": trainer.samples, "versions": runs.versions()}
    trackers = runs.chosen_trackers(job.log, job.tensorboard)
    return runs.logger(trainer.folder, trackers, _title(trainer, place), about)


def _settle(trainers: Sequence[Trainer], source: RowSource) -> None:
    """Let heads take what they have to know of the training data, which is read once for all of them."""
    for trainer in trainers[:1]:
        trainer.head.settle(source, trainer.sampler)
    for trainer in trainers[1:]:
        trainer.head.settle_as(trainers[0].head)


def _title(trainer: Trainer, place: RunFolder) -> str:
    """What trackers call a training: its RUN, with the folder of all of them if it is one of several heads."""
    return "-".join(place.output.resolve().parts[-2 if trainer.name else -1 :])


def _prove(models: Sequence[tuple[Setup, TaskLayer]], trainers: Sequence[Trainer], data: TrainingData) -> None:
    """Try a step and the RUN of one head of each kind: heads of one request differ in their adapter and last layer."""
    proved = []
    for (setup, layer), trainer in zip(models, trainers, strict=True):
        adapter = trainer.settings.adapter
        hidden = trainer.settings.layers.pooled.hidden is not None
        kind = (adapter.kind, adapter.save, adapter.layers, adapter.dropout > 0, layer.head, hidden)
        if kind not in proved:
            if isinstance(trainer.head, StatesHead):
                prove_network(setup, layer, trainer.head, data.train.data[0].probes, trainer.folder)
            else:
                prove_training(setup, layer, data.train.data[0].probes, trainer.folder, trainer.head.weights, adapter)
            proved.append(kind)
