"""One record as a task sees it: the samples that it gives, and its labels."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from recycle_cli.keys import Sample

Views = Sequence[Callable[[Sample], Sample]]
"""Functions that make the augmented views of an image sample."""

Expand = Callable[["Example"], "Example"]
"""The example with other samples in place of its own: the windows of a long text. Raises BadRecord."""


@dataclass(frozen=True, slots=True)
class Example:
    """One record. A text, a pair of texts or an image gives one sample; question and answer give two; the windows of a
    long text give as many as there are.

    label   what the task's `read_label` made of the label column; None if the record has none
    labels  the same by column, if several columns were asked for; those that the record lacks are left out
    starts  for the windows of a text, the first character of each
    spans   for the windows of a text, the places of each one's rows: field, first and last + 1 character (rows, 3)
    whole   the sample whose text the windows are parts of; None if the samples are those of the record
    place   the file and the number of its record, for messages; no part of what it is
    kept    values of further columns of the record, by column
    """

    id: str
    samples: tuple[Sample, ...]
    label: Any = None
    labels: Mapping[str, Any] = field(default_factory=dict)
    starts: tuple[int, ...] = ()
    spans: tuple[npt.NDArray[np.int64], ...] = field(default=(), compare=False)
    whole: Sample | None = None
    place: str = field(default="", compare=False)
    kept: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sample(self) -> Sample:
        """The only sample of an example that has one."""
        (sample,) = self.samples
        return sample

    @property
    def named(self) -> str:
        """What a message calls it: the file and the number of its record, or its id if these are not known."""
        return self.place or f"record {self.id}"

    def label_in(self, column: str | None) -> Any:
        """The label in one of several columns; `column` None: the example's only label. None if there is none."""
        return self.label if column is None else self.labels.get(column)
