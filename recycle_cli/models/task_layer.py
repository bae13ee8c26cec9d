"""The layer that a model is to end with, as plain data."""

from dataclasses import dataclass, replace

from recycle_cli.settings import EmbeddingSettings

EMBEDDING = "embedding"
SEQUENCES = "AutoModelForSequenceClassification"


@dataclass(frozen=True)
class TaskLayer:
    """The last layer of a model, and so the meaning of its outputs.

    problem  transformers' `problem_type` of a classifier of whole samples (`regression`, `multi_label_classification`,
             ...), or `embedding`; of no account for other classes of `auto`
    labels   a name for each output (the classes, the tags, the numbers of a regression; `start` and `end` for question
             answering); None keeps the checkpoint's own
    head     the new layer that makes an embedding; None keeps the checkpoint's own
    auto     the Auto class of transformers that puts the layer on a text model
    pooled   how a pooled head on the bare encoder pools (`mean`, `cls`); None for the model's own classifier
    per_row  whether the model gives outputs for each row (token), and not for each sample
    """

    problem: str = "single_label_classification"
    labels: tuple[str, ...] | None = None
    head: EmbeddingSettings | None = None
    auto: str = SEQUENCES
    per_row: bool = False
    pooled: str | None = None

    @property
    def embeds(self) -> bool:
        """Whether the outputs are an embedding."""
        return self.problem == EMBEDDING

    @property
    def kept(self) -> "TaskLayer":
        """This layer with the checkpoint's own labels and weights."""
        return replace(self, labels=None, head=None)


OWN = TaskLayer()
"""A classifier of whole samples with the classes that the checkpoint has."""

VECTORS = TaskLayer("vectors")
"""No layer: a text model's pooled rows, as it is used for embeddings without having been trained here."""
