"""The learning-rate schedule, a function of the step."""

import math

from recycle_cli.settings import TrainingSettings
from recycle_cli.training.freezing.rules import autofreeze_rate


def learning_rate(step: int, steps: int, settings: TrainingSettings) -> float:
    """Linear warm-up from 0 over the first share of the steps, then linear decay to 0; or AutoFreeze's two steps down
    with its rule."""
    warmup = math.ceil(steps * settings.warmup_share)
    if step < warmup:
        return settings.highest_rate * (step + 1) / warmup
    if settings.freezing.rule == "autofreeze":
        return settings.highest_rate * autofreeze_rate(step, steps)
    return settings.highest_rate * (steps - step) / max(1, steps - warmup)
