"""What a person who watches a training is told: a line for each epoch, each evaluation and each early end."""

from collections.abc import Iterator, Mapping, Sequence

from recycle_cli.reports import Bar, human
from recycle_cli.tasks import LOSS
from recycle_cli.training.trainer import Trainer


def tell_resumed(trainers: Sequence[Trainer], progress: Bar) -> None:
    """Say where a training goes on that was interrupted."""
    for trainer in trainers:
        if trainer.state.step and trainer.goes_on:
            progress.tell(f"{_named(trainer)}going on after step {trainer.state.step:,}, in {_epoch(trainer, ahead=1)}")


def tell_epoch(trainers: Sequence[Trainer], progress: Bar) -> None:
    """A line for each head about the epoch that it has finished. Heads that train together share its seconds."""
    for trainer in trainers:
        own = trainer.state.epochs[-1]
        parts = ["nothing to learn" if own["epoch_loss"] is None else f"train loss {human('loss', own['epoch_loss'])}"]
        if own["metrics"] is not None:
            parts.append(", ".join(_metrics(trainer, own["metrics"])))
        if not trainer.name:
            parts.append(human("seconds", own["seconds"]))
        if "read_cut" in own:
            parts.append(f"frozen to cut {own['frozen_cut']}, read from cut {own['read_cut']}")
        progress.tell(f"{_named(trainer)}{_epoch(trainer)}: {'; '.join(parts)}")
        if not trainer.goes_on and trainer.state.epoch < trainer.settings.epochs:
            progress.tell(f"{_named(trainer)}{_stopped(trainer)}")
    if trainers[0].name:
        own = trainers[0].state.epochs[-1]
        heads = f"{len(trainers)} heads" if len(trainers) > 1 else "one head"
        progress.tell(f"epoch {own['epoch']}: {human('seconds', own['seconds'])} for {heads}")


def tell_evaluation(trainers: Sequence[Trainer], progress: Bar) -> None:
    """A line for each head about an evaluation between two epochs."""
    for trainer in trainers:
        found = ", ".join(_metrics(trainer, trainer.judged))
        progress.tell(f"{_named(trainer)}{_epoch(trainer)}, step {trainer.state.step:,}: {found}")


def _metrics(trainer: Trainer, figures: Mapping[str, float]) -> Iterator[str]:
    """The metrics, first the one that chooses the best weights, with the best so far."""
    first = trainer.metric
    for name in (first, *(name for name in figures if name != first)):
        told = f"{'eval loss' if name == LOSS else name} {human(name, figures[name])}"
        if name == first:
            told += " (best so far)" if trainer.state.best_step == trainer.state.step else f" (best {_best(trainer)})"
        yield told


def _best(trainer: Trainer) -> str:
    assert trainer.state.best is not None
    return f"{human(trainer.metric, trainer.state.best[trainer.metric])} in epoch {trainer.state.best_epoch}"


def _stopped(trainer: Trainer) -> str:
    count = trainer.state.stale_evaluations
    brought = "evaluation has" if count == 1 else "evaluations have"
    return (
        f"stopped early after epoch {trainer.state.epoch} of {trainer.settings.epochs}: {count} {brought} brought no "
        f"better {trainer.metric} than {_best(trainer)}"
    )


def _epoch(trainer: Trainer, ahead: int = 0) -> str:
    state = trainer.state
    number = state.current_epoch + (0 if state.batch else ahead)
    return f"epoch {number} of {trainer.settings.epochs}"


def _named(trainer: Trainer) -> str:
    return trainer.name and f"{trainer.name}: "
