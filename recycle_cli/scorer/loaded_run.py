"""A RUN in memory: from rows to outputs, and from outputs to answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from recycle_cli.batches import INPUTS, Tensors, joined
from recycle_cli.corpus import Example
from recycle_cli.models import NamedModel, OpenPreprocessor
from recycle_cli.models.outputs import Outputs
from recycle_cli.runs import RunInfo
from recycle_cli.tasks import Task
from recycle_cli.training.head import Head

Rows = dict[str, Tensors]
"""The stored rows of a batch at each cut that a head reads."""


@dataclass(frozen=True)
class LoadedRun:
    """A RUN in memory. `model`: its checkpoint and the settings it computes with; `names`: its classes."""

    info: RunInfo
    model: NamedModel
    task: Task
    names: list[str]
    head: Head

    @property
    def cuts(self) -> tuple[str, ...]:
        """The cuts whose rows its head reads."""
        return self.info.cuts

    @property
    def trunk(self) -> str | None:
        """The fingerprint of all that decides the rows at its cut, if it is given inputs and its head are the layers
        of the model behind the cut; RUNs with one can share a pass."""
        plain = type(self.head) is Head and self.head.reads == INPUTS and self.model.reused is None
        if not plain or self.info.cut not in self.head.split.recipe.cuts:
            return None
        return self.head.split.recipe.at(self.info.cut).fingerprint

    def behind(self, rows: Tensor, lengths: Tensor) -> Outputs:
        """Its outputs from the rows (B, L, *shape) of its trunk, and their lengths (B,)."""
        split = self.head.split
        return Outputs(split.head_from(self.info.cut)(rows, lengths), lengths if split.per_row else None).cpu()

    def answers(
        self, outputs: Outputs, examples: Sequence[Example], preprocessor: OpenPreprocessor
    ) -> list[dict[str, Any]]:
        """A prediction for each of some examples, from the outputs of their samples, in their order."""
        return self.task.answers(outputs, examples, self.names, preprocessor)

    def outputs(self, rows: Rows) -> Outputs:
        """Its outputs from the rows of a batch at each cut."""
        own = [rows[cut] for cut in self.cuts]
        return self.head(own[0] if len(own) == 1 else joined(self.cuts, own)).cpu()
