"""`--log wandb`: a run of the project WANDB_PROJECT, `recycle` by default; WANDB_MODE=offline keeps it in the RUN."""

import os
from collections.abc import Mapping
from uuid import uuid4

from recycle_cli.errors import UsageError
from recycle_cli.runs.trackers.contract import About

SENDING = ("online", "run", "shared")
"""Modes of wandb in which a key is needed."""


def log_in() -> None:
    """Log in now if figures are to be sent; else wandb would ask for the key in the middle of the training.

    Raises UsageError if nobody is logged in and nobody can be asked.
    """
    import wandb

    if wandb.setup().settings.mode not in SENDING:
        return
    try:
        wandb.login()
    except (wandb.Error, ValueError, EOFError) as error:
        said = " ".join(str(error).split())
        raise UsageError(f"--log wandb: {said}; run `wandb login`, or set WANDB_MODE=offline") from error


class WeightsAndBiases:
    """A run of Weights & Biases; a process may have several. It ignores steps that it has already."""

    def __init__(self, about: About) -> None:
        import wandb

        self.key = about.key or uuid4().hex[:12]
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "recycle"),
            id=self.key,
            name=about.name,
            config=dict(about.settings),
            dir=str(about.folder),
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off"),
        )
        self.where = str(self._run.dir if self._run.offline else self._run.url)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Figures of one step are put together until those of the next come."""
        self._run.log(dict(figures), step=step)

    def close(self, *, finished: bool) -> None:
        """Send what is left."""
        self._run.finish(exit_code=0 if finished else 1)
