"""The training loop, in the open: from stored rows or from raw inputs, the same steps in the same order."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from recycle_cli.batches import Epoch, RowSource, SharedBatch
from recycle_cli.errors import Interrupted
from recycle_cli.reports import Bar
from recycle_cli.runtime.devices import pinned, to_device
from recycle_cli.runtime.overlap import prefetch
from recycle_cli.runtime.quick_masks import quick_masks
from recycle_cli.runtime.signals import Deferred, deferred_signals
from recycle_cli.training.evaluation import judge
from recycle_cli.training.learning_rate import learning_rate
from recycle_cli.training.told import tell_epoch, tell_evaluation, tell_resumed
from recycle_cli.training.trainer import Trainer

BOTH_SIGNALS = 3.0
"""Seconds within which ranks take two signals for one: the terminal's, and the launcher's, which passes it on."""


def train(trainers: Sequence[Trainer], source: RowSource, evaluation: RowSource | None, progress: Bar) -> None:
    """Train heads on the same batches, each read once, and leave every head's best weights in place.

    Batch size, order and accumulation are those of the first. An interruption leaves checkpoints to resume from.
    """
    sampler = trainers[0].sampler
    steps_an_epoch = math.ceil(len(source.epoch(sampler, 0).batches) / trainers[0].settings.accumulation)
    for trainer in trainers:
        trainer.load()
        trainer.begin(steps_an_epoch, source, evaluation)
    tell_resumed(trainers, progress)
    last = max(trainer.settings.epochs for trainer in trainers)
    progress.update(min(trainer.state.step for trainer in trainers), total=last * steps_an_epoch)

    grace = 0.0 if trainers[0].parallel is None else BOTH_SIGNALS
    with quick_masks(), deferred_signals(grace) as signals, _ending(trainers):
        while active := [trainer for trainer in trainers if trainer.goes_on]:
            number = min(trainer.state.epoch for trainer in active)
            current = [trainer for trainer in active if trainer.state.epoch == number]
            # Heads that train together read the same rows; those whose layers freeze train alone.
            epoch = current[0].moved(source.epoch(sampler, number))
            clock = _Clock(current)
            for ready, ends in _learned(current, epoch):
                for trainer in ready:
                    _step(trainer, steps_an_epoch, progress)
                progress.update(1)
                if evaluation and not ends and (due := [trainer for trainer in ready if _is_due(trainer)]):
                    with clock.stopped():
                        judge(due, evaluation)
                        tell_evaluation(due, progress)
                asked = _is_asked(signals, current)
                every = trainers[0].settings.save_steps
                if asked or (every and ready[0].state.step % every == 0):
                    with clock.stopped():
                        for trainer in current:
                            trainer.save()
                        _stop_if(asked, current)

            clock.stop()
            _end_epoch(current, evaluation, progress)
            _stop_if(_is_asked(signals, current), current)
    progress.update(total=max(trainer.state.step for trainer in trainers))  # fewer if all have stopped early
    for trainer in trainers:
        trainer.take_best()


def _learned(trainers: Sequence[Trainer], epoch: Epoch) -> Iterator[tuple[list[Trainer], bool]]:
    """Learn from the batches of an epoch that are left; before each optimizer step yield the trainers that are to take
    it, and whether it is the last one of the epoch."""
    accumulation, device = trainers[0].settings.accumulation, trainers[0].device
    first = min(trainer.state.batch for trainer in trainers)
    read = trainers[0].phases.waiting(prefetch(pinned(epoch.load(first), device)))
    for place, (members, batch) in enumerate(read, first):
        # A head that was further when all were interrupted waits for the others.
        ready = [trainer for trainer in trainers if trainer.state.batch == place]
        inputs = SharedBatch(to_device(batch, device), len(ready))
        rest = epoch.batches[place + 1 : (place // accumulation + 1) * accumulation]
        for trainer in ready:
            last = not any(len(trainer.learnable(one)) for one in rest)
            trainer.learn(members, trainer.advanced(members, inputs.ready()), last=last)
        if not rest:
            yield ready, place + 1 == len(epoch.batches)


def _step(trainer: Trainer, steps_an_epoch: int, progress: Bar) -> None:
    """Take an optimizer step at the learning rate of the schedule, and show its loss."""
    state, settings = trainer.state, trainer.settings
    loss = trainer.step(learning_rate(state.step, settings.epochs * steps_an_epoch, settings))
    trainer.decide()
    if loss is not None:
        progress.update(note=f"epoch {state.current_epoch}/{settings.epochs}, loss {loss:.4f}")


def _end_epoch(trainers: Sequence[Trainer], evaluation: RowSource | None, progress: Bar) -> None:
    """Evaluate the heads, freeze what is to freeze, tell how the epoch went, and leave checkpoints."""
    for trainer in trainers:
        trainer.end_epoch()
    if evaluation:
        judge(trainers, evaluation)
    for trainer in trainers:
        trainer.decide(between_epochs=True)
    tell_epoch(trainers, progress)
    for trainer in trainers:
        trainer.save()


def _is_due(trainer: Trainer) -> bool:
    """Whether a head is to be evaluated between epochs."""
    return trainer.settings.eval_steps > 0 and trainer.state.step % trainer.settings.eval_steps == 0


@contextmanager
def _ending(trainers: Sequence[Trainer]) -> Iterator[None]:
    """However the block ends, the trainers write nothing afterwards."""
    try:
        yield
    finally:
        for trainer in trainers:
            trainer.close()


def _is_asked(signals: Deferred, trainers: Sequence[Trainer]) -> bool:
    """Whether a signal has asked this process, or one that trains with it, to stop."""
    parallel = trainers[0].parallel
    return signals.asked if parallel is None else any(asked for (asked,) in parallel.ranks.numbers([signals.asked]))


def _stop_if(asked: bool, trainers: Sequence[Trainer]) -> None:
    """Raise Interrupted if a signal has asked for it; what is told is how far the checkpoint is."""
    if asked:
        step = min(trainer.state.step for trainer in trainers)
        raise Interrupted(f"interrupted after step {step:,}, which is kept: the same command with --resume goes on")


class _Clock:
    """Measures the seconds of an epoch's training without evaluations and checkpoints; heads that train together share
    them. While it runs, the heads are in training mode."""

    def __init__(self, trainers: Sequence[Trainer]) -> None:
        self._trainers = trainers
        self._start()

    def _start(self) -> None:
        for trainer in self._trainers:
            trainer.head.train()
        self._started = time.perf_counter()

    def stop(self) -> None:
        """Add the time since the start to the epoch's."""
        for trainer in self._trainers:
            trainer.state.seconds += time.perf_counter() - self._started

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """The clock stands still; the heads train again afterwards."""
        self.stop()
        yield
        self._start()
