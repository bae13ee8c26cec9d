"""Training settings from the command line or from a --heads file."""

from recycle_cli.cli.options import Asked, filled, value_of
from recycle_cli.errors import UsageError
from recycle_cli.settings import TASKS, TrainingSettings
from recycle_cli.settings.option import options_of


def training_settings(asked: Asked) -> TrainingSettings:
    """How a head is trained, with its task's own options. Raises UsageError for an option of other tasks alone."""
    task: str = asked["task"]
    _refuse_of_others(task, asked)
    return filled(TrainingSettings, asked, task=filled(TASKS[task], asked))


def _refuse_of_others(task: str, asked: Asked) -> None:
    mine = options_of(TASKS[task])
    for kind in dict.fromkeys(TASKS.values()):
        idle = {name: one for name, one in options_of(kind).items() if name not in mine}
        changed = [f"--{name}" for name, one in idle.items() if value_of(name, asked) not in (None, one.default)]
        if changed:
            takers = " or ".join(name for name, other in TASKS.items() if changed[0][2:] in options_of(other))
            raise UsageError(f"{', '.join(changed)}: only --task {takers} takes it; leave it out of --task {task}")
