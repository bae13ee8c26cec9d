"""Time a few batches of a training epoch with the training loop of `recycle finetune`."""

from collections.abc import Mapping

import numpy as np
import torch

from recycle_cli.batches import Indices, RowSource, Sampler
from recycle_cli.bench.subject import SILENT, Subject, discard
from recycle_cli.bench.timing import WARM_UP
from recycle_cli.models import SplitModel
from recycle_cli.runs import Log, ignore
from recycle_cli.settings import TrainingSettings
from recycle_cli.training import Destination, Head, LabelledData, Trainer, train, trainer_of

FEW = 2
"""Number of batches in the warm-up."""

Weights = Mapping[str, torch.nn.Parameter]


def training(subject: Subject) -> TrainingSettings:
    """Settings of a training of one epoch, with the other defaults."""
    return TrainingSettings(epochs=1, batch_size=subject.settings.batch_size, seed=subject.settings.seed)


def slice_of(lengths: Indices, sampler: Sampler, batches: int, place: float) -> Indices:
    """Choose whole batches of the first epoch, evenly spread over the batches' lengths, and return their members.

    `place` from 0 to 1 shifts the choice, so that each repetition takes other batches with the same spread.
    """
    whole = [members for members in sampler.batches(lengths, 0) if len(members) == sampler.batch_size]
    whole.sort(key=lambda members: int(lengths[members].max()))
    count = min(batches, len(whole))
    # Shift every other batch the opposite way, so that all slices have about the same number of tokens.
    strata = np.arange(count)
    shift = np.where(strata % 2, 1 - place, place)
    chosen = ((strata + shift) * len(whole) / count).astype(np.int64).clip(max=len(whole) - 1)
    return np.concatenate([whole[at] for at in chosen.tolist()])


def slice_for(subject: Subject, repetition: int, batches: int | None = None) -> Indices:
    """Choose the samples of a repetition: the same for all variants that ask for the same number of `batches`.

    If `batches` is None, as in a bench, the settings say how many. A plan asks for more if steps are short.
    """
    settings, sampler = subject.settings, subject.task.sampler(subject.data.targets, training(subject))
    if repetition == WARM_UP:
        return slice_of(subject.lengths, sampler, FEW, 0.5)
    place = (repetition + 0.5) / settings.repetitions
    return slice_of(subject.lengths, sampler, batches or settings.batches, place)


def epoch_seconds(
    subject: Subject,
    halves: SplitModel,
    cut: str,
    source: RowSource,
    members: Indices,
    log: Log = ignore,
    weights: Weights | None = None,
) -> float:
    """Train one epoch on these samples with a new optimizer; return its seconds as the training loop counts them.

    `weights` are the weights to train, if not all of the head's.
    """
    folder = subject.folder()
    head = Head(halves, cut, source.cuts, weights or dict(halves.head_parameters(cut)))
    trainer = trainer_for(subject, head, Destination(folder, log=log), subject.data.take(members))
    train([trainer], source, None, SILENT)
    discard(folder)
    return trainer.state.epoch_seconds[0]


def trainer_for(subject: Subject, head: Head, to: Destination, data: LabelledData) -> Trainer:
    """The trainer of a head of the subject's model, as `recycle finetune` makes it."""
    return trainer_of(head, training(subject), subject.task, (data, None), to, subject.model.precision)
