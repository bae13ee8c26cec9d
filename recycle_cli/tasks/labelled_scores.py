"""Metrics of predictions, over the predicted records that have labels."""

from collections.abc import Sequence

import numpy as np
import torch

from recycle_cli.corpus import Example
from recycle_cli.errors import DataError
from recycle_cli.models import OpenPreprocessor
from recycle_cli.models.outputs import Outputs
from recycle_cli.tasks.contract import Task
from recycle_cli.tasks.label_encoding import Encoded, UnknownLabel


class LabelledScores:
    """Scores the examples that have a label; without labels nothing grows with the corpus.

    `names`: the RUN's classes.
    """

    def __init__(self, task: Task, names: Sequence[str], preprocessor: OpenPreprocessor) -> None:
        self._task, self._names, self._preprocessor = task, names, preprocessor
        self._given_up: str | None = None
        self._start()

    def _start(self) -> None:
        self._encoder = self._task.encoder(self._names if self._task.closed else None, self._preprocessor)
        self._scores = self._task.scores()
        self.samples = 0

    def add(self, examples: Sequence[Example], outputs: Outputs) -> None:
        """Add examples, and the outputs of their samples in order."""
        labelled = [example for example in examples if self._counts(example)]
        if not labelled or self._given_up is not None:
            return
        try:
            for example in labelled:
                self._encoder.add(example, example.label)
        except UnknownLabel as error:
            self._give_up(error.reason)
            return
        known = [self._counts(example) for example in examples for _ in example.samples]
        places = torch.tensor(known).nonzero().flatten()
        self._scores.add(np.arange(self.samples, self.samples + len(places)), outputs.take(places))
        self.samples += len(places)
        if self._task.comparable is not None and self.samples > self._task.comparable:
            self._give_up(f"more than {self._task.comparable:,} labelled samples to compare with one another")

    def _counts(self, example: Example) -> bool:
        return example.label is not None or not self._task.needs_labels

    def _give_up(self, reason: str) -> None:
        """Drop what was kept and ignore what comes: there will be no figures."""
        self._given_up = reason
        self._start()

    def figures(self) -> dict[str, float] | None:
        """The task's metrics; None if there are none, for which `why_none` gives the reason."""
        if self.why_none(None) is not None:
            return None
        return self._scores.figures(self._encoder.finish().targets)

    def why_none(self, column: str | None) -> str | None:
        """Why there are no metrics; None if there are. `column`: the column of labels, if one was found."""
        if self._given_up is not None:
            return self._given_up
        if not self.samples and column is None:
            return "no column of labels was found; --label-column names one"
        if not self.samples:
            return f"no record has a label in the column {column!r}"
        try:
            found: Encoded = self._encoder.finish()
            self._task.check_data(found.targets, found.names)
        except DataError as error:
            return str(error)
        return None
