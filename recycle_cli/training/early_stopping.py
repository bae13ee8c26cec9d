"""Early stopping: the best weights so far, and how long a training goes on without better ones."""

from collections.abc import Mapping

from recycle_cli.runs import State
from recycle_cli.settings import TrainingSettings
from recycle_cli.tasks import is_better


def goes_on(state: State, settings: TrainingSettings) -> bool:
    """False after the last epoch, or once `patience` evaluations in a row were no better than the best."""
    return state.epoch < settings.epochs and not 0 < settings.patience <= state.stale_evaluations


def improves(state: State, metric: str, figures: Mapping[str, float]) -> bool:
    """Enter an evaluation into the state; return whether it is the best so far."""
    if not is_better(metric, figures, state.best):
        state.stale_evaluations += 1
        return False
    state.best, state.stale_evaluations = dict(figures), 0
    state.best_epoch, state.best_step = state.current_epoch, state.step
    return True
