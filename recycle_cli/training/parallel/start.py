"""Begin a training on several ranks."""

from collections.abc import Sequence

import numpy as np

from recycle_cli.batches import RowSource, ShareOfRows, Shares
from recycle_cli.errors import UsageError
from recycle_cli.runs import same_settings, training_of
from recycle_cli.runtime.ranks import Ranks
from recycle_cli.settings import Job, TrainingSettings
from recycle_cli.training.freezing.freezing import Freezing
from recycle_cli.training.parallel.parallel import Parallel
from recycle_cli.training.trainer import Trainer


def check_parallel(job: Job, settings: Sequence[TrainingSettings]) -> None:
    """Raise UsageError for what several ranks cannot do."""
    sources = (*job.data.source, *(job.evaluation.source if job.evaluation else ()))
    if "-" in sources:
        raise UsageError("-: stdin goes to one process, and several train; put the records into a file")
    for one in settings:
        if one.mixup or one.cutmix:
            option = "--mixup" if one.mixup else "--cutmix"
            raise UsageError(
                f"{option}: samples are mixed with others of their batch, which other ranks have; leave it out, or "
                "train in one process"
            )


def check_alone(settings: Sequence[TrainingSettings]) -> None:
    """Raise UsageError for what needs several ranks."""
    for one in settings:
        if one.freezing.votes != "mean":
            raise UsageError(
                f"--freeze-votes {one.freezing.votes}: one process has nobody to vote with; start several by torchrun, "
                "or leave it out"
            )


def share_out(
    trainers: Sequence[Trainer], source: RowSource, evaluation: RowSource | None, ranks: Ranks
) -> tuple[RowSource, RowSource | None]:
    """Let the trainers train together with those of the other ranks; returns the sources, of which this rank reads its
    share. Raises UsageError if the ranks do not have the same data and settings, or not the same folder."""
    for trainer in trainers:
        first, training = ranks.told((trainer.identity, training_of(trainer.folder)))
        same_settings(first, trainer.identity, f"rank {ranks.number} has other data or settings than rank 0: ")
        if trainer.freezing is not None and training_of(trainer.folder) != training:
            raise UsageError(f"{trainer.folder} is another folder on rank {ranks.number}; ranks that freeze share one")
        _check_statistics(trainer, source, ranks)
    whole = Shares(source.lengths, ranks.number, ranks.count)
    judged = None if evaluation is None else Shares(evaluation.lengths, ranks.number, ranks.count)
    for trainer in trainers:
        trainer.parallel = Parallel(ranks, trainer.head, (whole, judged), trainer.settings.seed)
        if trainer.freezing is not None:
            trainer.freezing.moving.ranks = ranks
            if trainer.settings.freezing.votes != "mean":
                _let_vote(trainer, trainer.freezing, trainer.parallel, ranks)
    return ShareOfRows(source, whole), None if evaluation is None or judged is None else ShareOfRows(evaluation, judged)


def _let_vote(trainer: Trainer, freezing: Freezing, parallel: Parallel, ranks: Ranks) -> None:
    """Let the ranks vote on what freezes. Raises UsageError if labels are to weigh that are no classes."""
    targets, by_labels = trainer.data.targets, trainer.settings.freezing.votes == "weighted-labels"
    values = targets.values
    if by_labels and (targets.offsets is not None or values.ndim != 1 or not np.issubdtype(values.dtype, np.integer)):
        raise UsageError("--freeze-votes weighted-labels: the labels are not one class a sample; take weighted")
    if trainer.scaler.is_enabled():
        raise UsageError("--freeze-votes: gradients of --precision float16 are scaled; take bfloat16, or leave it out")
    votes = freezing.let_vote(ranks, len(trainer.data.names) if by_labels else 0)
    parallel.seen = votes.seen
    parallel.learnt = lambda own, count: votes.learnt(values[own] if by_labels else np.zeros(len(own), np.int64), count)


def _check_statistics(trainer: Trainer, source: RowSource, ranks: Ranks) -> None:
    """Raise UsageError if a rank would have no sample of a batch, and BatchNorm would count one that it must not."""
    if not trainer.head.statistics:
        return
    batches = [trainer.learnable(members) for members in source.epoch(trainer.sampler, 0).batches]
    smallest = min((len(one) for one in batches if len(one)), default=ranks.count)
    if smallest < ranks.count:
        raise UsageError(
            f"a batch of the first epoch has {smallest} samples for {ranks.count} ranks, and BatchNorm needs one of "
            "each; give another --batch-size, or start fewer ranks"
        )
