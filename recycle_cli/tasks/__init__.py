"""What a head can be trained for: each task answers the one contract of `contract.py`."""

from recycle_cli.settings import SimilaritySettings
from recycle_cli.tasks.classification import Classification
from recycle_cli.tasks.contract import LOSS, Columns, Targets, Task, chosen_metric, is_better
from recycle_cli.tasks.multi_label import MultiLabel
from recycle_cli.tasks.scores import MOST_TO_COMPARE, Scores
from recycle_cli.tasks.similarity import Similarity

SIMILARITY = "similarity"

__all__ = [
    "LOSS",
    "MOST_TO_COMPARE",
    "SIMILARITY",
    "Classification",
    "Columns",
    "MultiLabel",
    "Scores",
    "Similarity",
    "Targets",
    "Task",
    "chosen_metric",
    "is_better",
    "task_of",
]


def task_of(
    name: str,
    *,
    multi_label: bool = False,
    similarity: SimilaritySettings = SimilaritySettings(),  # noqa: B008 - frozen
    threshold: float = 0.5,
) -> Task:
    """The task that `--task` names; the names of classification tell texts from images, which the head does not."""
    if name == SIMILARITY:
        return Similarity(similarity)
    return MultiLabel(threshold) if multi_label else Classification()
