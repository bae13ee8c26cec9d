"""What a model is to end with, as plain data: scores of classes, or an embedding."""

from dataclasses import dataclass
from typing import Literal

from recycle_cli.settings import EmbeddingSettings


@dataclass(frozen=True)
class TaskLayer:
    """The last layer of a model.

    problem  transformers' name of what its outputs are, or `embedding`
    labels   the classes, one output each; None keeps the checkpoint's own
    head     of an embedding, the new layer that makes it; None keeps the checkpoint's own
    """

    problem: Literal["single_label_classification", "multi_label_classification", "embedding"] = (
        "single_label_classification"
    )
    labels: tuple[str, ...] | None = None
    head: EmbeddingSettings | None = None

    @property
    def embeds(self) -> bool:
        """Whether the outputs are an embedding."""
        return self.problem == "embedding"

    @property
    def kept(self) -> "TaskLayer":
        """The same kind of layer as a checkpoint has it."""
        return TaskLayer(self.problem)


OWN = TaskLayer()
"""The classes that the checkpoint has."""
