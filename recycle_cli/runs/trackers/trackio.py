"""`--log trackio`: a run of the project TRACKIO_PROJECT, `recycle` by default, in the folder TRACKIO_DIR."""

import os
from collections.abc import Mapping
from uuid import uuid4

from recycle_cli.runs.trackers.contract import About


class Trackio:
    """A run of Trackio, known by its name. Steps that a resumed training does again are in it twice, with the same
    figures."""

    def __init__(self, about: About) -> None:
        import trackio

        self.key = about.key or f"{about.name}-{uuid4().hex[:6]}"
        project = os.environ.get("TRACKIO_PROJECT", "recycle")
        resume = "never" if about.key is None else "allow"
        self._run = trackio.init(
            project=project, name=self.key, config=dict(about.settings), resume=resume, embed=False
        )
        self.where = f"trackio show --project {project}"

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """A point of each figure."""
        self._run.log(dict(figures), step=step)

    def close(self, *, finished: bool) -> None:
        """Write what is left."""
        self._run.finish()
