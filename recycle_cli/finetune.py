"""Train what comes after the cut: from the store, or without one from the inputs (the two baselines)."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from recycle_cli import runs
from recycle_cli.batches.inputs import Source, order_digest
from recycle_cli.errors import UsageError
from recycle_cli.models import views_of
from recycle_cli.reports import bar
from recycle_cli.runs.log import logger
from recycle_cli.settings import CorpusSettings, HeadSettings, ModelSettings, TrainingSettings
from recycle_cli.store import Store
from recycle_cli.training.checks import Job as Job
from recycle_cli.training.checks import check_batches, check_groups, of_images, refuse_idle_options, task_asked
from recycle_cli.training.finish import Finetuned, FinetunedHeads, leave_run, together
from recycle_cli.training.loop import train
from recycle_cli.training.material import Material, read, source_of, usable
from recycle_cli.training.pupils import identity, new_head, set_up_all
from recycle_cli.training.setup import Setup
from recycle_cli.training.trainer import Head, order_of

Heads = Mapping[Path, HeadSettings]
"""What each head is to be, by the folder of its RUN."""


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


def _train(job: Job, model: ModelSettings, heads: Heads, finished: Heads) -> list[Finetuned]:
    """Train heads on the same batches and leave each one's RUN in its folder, beside those that are finished."""
    settings = [head.training for head in heads.values()]
    shared = settings[0]
    store = None if job.store is None else Store.open(job.store)
    images = of_images(job, model, store)
    views = views_of(shared.views, images=images)
    for one in settings:
        refuse_idle_options(job, model, one, images=images)
    task = task_asked(job, shared)
    material = read(job, [*heads.values(), *finished.values()], task, images=images)
    check_groups(task, material.pairs)
    setups = set_up_all(job, model, store, material.data[: len(heads)], settings)
    material = usable(material, job, setups[0], shared)
    check_groups(task, material.pairs)  # of what --on-missing skip has left
    source = source_of(setups[0], material.data[0], shared, views)
    check_batches(task, material.data[0], source, shared)
    pupils = _trained(job, heads, finished, setups, material, source)
    return [leave_run(head, own, job, material.held) for head, own in zip(pupils, setups, strict=True)]


def _trained(
    job: Job, heads: Heads, finished: Heads, setups: Sequence[Setup], material: Material, source: Source
) -> list[Head]:
    """The heads, each with its best weights in place; finished ones must have been trained in the same way."""
    setup, pairs = setups[0], material.pairs
    shared = next(iter(heads.values())).training
    order = order_digest(source, order_of(task_asked(job, shared), material.data[0], shared))
    for (folder, head), pair in zip(finished.items(), pairs[len(heads) :], strict=True):
        runs.check_settings(folder, identity(job, setup, head.training, pair, order))
    for folder in heads:
        if not (job.resume and (folder / runs.CHECKPOINT).exists()):
            runs.clear(folder)
    evaluation = None if material.evaluation is None else source_of(setup, material.evaluation[0], shared)
    with ExitStack() as stack:
        progress = stack.enter_context(bar("finetune"))
        pupils = [
            new_head(folder, job, head, own, pair, order, stack.enter_context(logger(folder, job.tensorboard)))
            for (folder, head), own, pair in zip(heads.items(), setups, pairs[: len(heads)], strict=True)
        ]
        train(pupils, source, evaluation, progress)
    return pupils
