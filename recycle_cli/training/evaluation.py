"""Evaluation: every sample once, in order of length, and the task's figures of what comes out."""

from collections.abc import Sequence

import torch

from recycle_cli.batches import InOrder, RowSource, SharedBatch, places_in
from recycle_cli.runtime.devices import pinned, to_device
from recycle_cli.runtime.overlap import prefetch
from recycle_cli.training.trainer import Trainer


def evaluate(trainers: Sequence[Trainer], source: RowSource) -> list[dict[str, float]]:
    """The figures of each head over the samples of a source that have a label; each batch is read once for all."""
    scores = [trainer.task.scores() for trainer in trainers]
    for trainer in trainers:
        trainer.head.eval()
    device, batch_size = trainers[0].device, 2 * trainers[0].settings.batch_size
    with torch.inference_mode():
        # Heads that are evaluated together read the same rows; those whose layers freeze train alone.
        read = trainers[0].moved(source.epoch(InOrder(batch_size), 0), evaluating=True)
        for members, batch in prefetch(pinned(read.load(0), device)):
            inputs = SharedBatch(to_device(batch, device), len(trainers))
            for trainer, score in zip(trainers, scores, strict=True):
                ready = trainer.advanced(members, inputs.ready(), evaluating=True)
                outputs = trainer.evaluated(ready, members)
                trainer.check_finite(outputs)
                data = trainer.evaluation
                assert data is not None
                known = data.labelled(members)
                if len(known):
                    score.add(known, outputs.take(torch.from_numpy(places_in(members, known))))
    found = []
    for trainer, score in zip(trainers, scores, strict=True):
        assert trainer.evaluation is not None
        found.append(score.figures(trainer.evaluation.targets.take(trainer.evaluation.labelled_samples)))
    return found


def judge(trainers: Sequence[Trainer], evaluation: RowSource) -> None:
    """Evaluate the heads, log it, and keep the weights of those that are better than before."""
    for trainer, figures in zip(trainers, evaluate(trainers, evaluation), strict=True):
        trainer.judge(figures)
