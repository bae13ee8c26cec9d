"""What a head can be trained for: each task is a file, and answers the one contract of `contract.py`."""

from recycle_cli.tasks.classification import Classification
from recycle_cli.tasks.contract import LOSS, Task, chosen_metric, is_better
from recycle_cli.tasks.head_layers import check_layers, check_pooled, identity_of_layers
from recycle_cli.tasks.kinds import KINDS, TaskKind, task_of, task_of_run
from recycle_cli.tasks.label_encoding import Encoded, Encoder, LabelEncoder, UnknownLabel
from recycle_cli.tasks.labelled_scores import LabelledScores
from recycle_cli.tasks.multi_label import MultiLabel
from recycle_cli.tasks.pair_similarity import PairSimilarity
from recycle_cli.tasks.question_answering import QuestionAnswering
from recycle_cli.tasks.reading import read_corpus, read_samples, task_of_samples
from recycle_cli.tasks.regression import Regression
from recycle_cli.tasks.scores import DenseScores, Scores
from recycle_cli.tasks.similarity import Similarity
from recycle_cli.tasks.targets import IGNORED, Targets
from recycle_cli.tasks.token_classification import TokenClassification
from recycle_cli.tasks.windows import in_windows

__all__ = [
    "IGNORED",
    "KINDS",
    "LOSS",
    "Classification",
    "DenseScores",
    "Encoded",
    "Encoder",
    "LabelEncoder",
    "LabelledScores",
    "MultiLabel",
    "PairSimilarity",
    "QuestionAnswering",
    "Regression",
    "Scores",
    "Similarity",
    "Targets",
    "Task",
    "TaskKind",
    "TokenClassification",
    "UnknownLabel",
    "check_layers",
    "check_pooled",
    "chosen_metric",
    "identity_of_layers",
    "in_windows",
    "is_better",
    "read_corpus",
    "read_samples",
    "task_of",
    "task_of_run",
    "task_of_samples",
]
