"""The options of each kind of task."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from recycle_cli.settings.head_layers import HeadLayerSettings
from recycle_cli.settings.option import option
from recycle_cli.settings.reading import names

Metric = Literal[
    "macro_f1",
    "accuracy",
    "micro_f1",
    "mean_average_precision",
    "rrp",
    "pearson",
    "spearman",
    "rmse",
    "f1",
    "exact_match",
    "rrk",
    "precision_at_1",
    "recall_at_10",
    "ndcg_at_10",
    "precision",
    "recall",
    "loss",
]


LADDER_SMOOTHING = 0.1
"""The label smoothing of a ladder by default: its weights begin at random, and overfit a small training set."""


@dataclass(frozen=True)
class TaskSettings:
    """The options of one kind of task. `layers`: those of the layers that train, which every task has."""

    layers: HeadLayerSettings = field(default=HeadLayerSettings(), kw_only=True)


@dataclass(frozen=True)
class WindowSettings:
    """How a text that is too long for a model becomes several samples, its windows. `stride`: the tokens that
    neighbouring windows share; None for 128, but at most a third of the tokens that a sample may have."""

    stride: int | None = option(
        None,
        "Let neighbouring windows of a long text share at least this many tokens; by default 128, but no more than a "
        "third of --max-length.",
        "Task",
        minimum=0,
    )


@dataclass(frozen=True)
class WindowedSettings(TaskSettings):
    """The options of a task whose long texts are cut into windows."""

    windows: WindowSettings = WindowSettings()


@dataclass(frozen=True, kw_only=True)
class SmoothedSettings(TaskSettings):
    """The options of a task that learns classes.

    label_smoothing  the share of each label that is spread evenly over all classes; of a label that is there or not,
                     over both. None for the default of the layers that train. (Szegedy et al., Rethinking the Inception
                     Architecture, 2016.)
    """

    label_smoothing: float | None = option(
        None,
        "Spread this share (0 to 0.9) of each label evenly over all classes in training, with --multi-label over yes "
        "and no, which makes scores less certain; by default 0.1 for --head ladder, else 0.",
        "Task",
        minimum=0.0,
        maximum=0.9,
        per_head=True,
    )

    @property
    def smoothing(self) -> float:
        """The share that is spread."""
        if self.label_smoothing is not None:
            return self.label_smoothing
        return LADDER_SMOOTHING if self.layers.kind == "ladder" else 0.0


@dataclass(frozen=True)
class ClassificationSettings(SmoothedSettings):
    """The options of classification. `class_weights` balanced gives samples of rare classes more weight."""

    multi_label: bool = option(False, "A record may have several labels: a list, or text a|b.", "Task", usual=True)
    class_weights: Literal["none", "balanced"] = option(
        "none",
        "Give every sample the same weight (none), or those of rare classes more (balanced).",
        "Task",
        per_head=True,
    )
    numbers_as_classes: bool = option(
        False, "Take a label column of many different numbers for names of classes.", "Task", per_head=True
    )


@dataclass(frozen=True)
class RegressionSettings(TaskSettings):
    """The options of regression. `target_columns`: a column for each number to learn; () for the label column."""

    target_columns: tuple[str, ...] = option(
        (),
        "For regression: learn the numbers in these columns, such as valence,arousal, in place of those in the label "
        "column.",
        "Task",
        parser=names,
    )


@dataclass(frozen=True)
class TokenSettings(WindowedSettings, SmoothedSettings):
    """The options of token classification. `tag_names`: the names of tags that are numbers; `label_all_pieces`: learn a
    word's tag at all of its pieces, not only at the first."""

    tag_names: tuple[str, ...] = option(
        (),
        "For token classification: the names of tags that are numbers, from 0 on, such as O,B-PER,I-PER.",
        "Task",
        parser=names,
    )
    label_all_pieces: bool = option(
        False,
        "For token classification: learn a word's tag at all of its pieces; by default at the first alone.",
        "Task",
    )


@dataclass(frozen=True)
class QuestionAnsweringSettings(WindowedSettings):
    """The options of question answering.

    no_answer            whether a question may have no answer in its context
    no_answer_threshold  by how much the probability of no answer must exceed that of the best answer
    max_answer_tokens    the most tokens of an answer
    """

    no_answer: bool = option(
        False, "For question answering: a question may have no answer, and then its answer is empty.", "Task"
    )
    no_answer_threshold: float = option(
        0.0,
        "With --no-answer: leave the answer empty if the score of none exceeds that of the best by more than this.",
        "Task",
        minimum=-1.0,
        maximum=1.0,
        per_head=True,
    )
    max_answer_tokens: int = option(
        30, "For question answering: give answers of at most this many tokens.", "Task", minimum=1, per_head=True
    )


@dataclass(frozen=True)
class EmbeddingSettings:
    """The layer that makes an embedding. `size` None: as wide as its input, which `skip` always is.

    skip     y = x' + sigmoid(g) * (W drop(x') + b), x' = drop(x), g from -4: at first it changes next to nothing
    linear   y = W x' + b
    dropout  the share of x that is dropped; `skip_dropout`: the share of x' dropped before W
    """

    kind: Literal["skip", "linear"] = option(
        "skip",
        "For similarity: the new last layer adds to its input (skip), or replaces it (linear).",
        "Task",
        name="embedding",
        per_head=True,
    )
    size: int | None = option(
        None,
        "Width of the embedding of --embedding linear; by default the width of its input.",
        "Task",
        name="embedding-size",
        minimum=1,
        per_head=True,
    )
    dropout: float = 0.3
    skip_dropout: float = 0.2


@dataclass(frozen=True)
class SimilaritySettings(TaskSettings):
    """How an embedding is learnt from groups.

    margin         of the triplet loss
    temperature    of the contrastive loss
    group_samples  samples of a group that come into a batch together
    embedding      the new last layer
    """

    loss: Literal["triplet", "supervised-contrastive"] = option(
        "triplet",
        "For similarity: the loss that keeps samples of a group together and groups apart.",
        "Task",
        per_head=True,
    )
    margin: float = option(
        0.5,
        "For the triplet loss: how much farther a sample of another group must be than one of the same group.",
        "Task",
        minimum=0.0,
        per_head=True,
    )
    temperature: float = option(
        0.1,
        "For the supervised-contrastive loss: the temperature; a low one gives the nearest samples more weight.",
        "Task",
        minimum=1e-4,
        per_head=True,
    )
    group_samples: int = option(
        4, "For similarity: put this many samples of a group into a batch together.", "Task", minimum=2
    )
    embedding: EmbeddingSettings = EmbeddingSettings()


@dataclass(frozen=True)
class PairSettings(TaskSettings):
    """How an embedding is learnt from pairs.

    loss       multiple-negatives tells the partner from the others of a batch, cosent and cosine-mse learn scores
    scale      factor of the similarities in multiple-negatives and cosent
    embedding  the new last layer
    """

    loss: Literal["multiple-negatives", "cosent", "cosine-mse"] = option(
        "multiple-negatives",
        "For pair similarity: tell the partner from the others of a batch (multiple-negatives), or learn scores, by "
        "their order (cosent) or as cosines (cosine-mse).",
        "Task",
        name="pair-loss",
    )
    scale: float = option(
        20.0,
        "For multiple-negatives and cosent: multiply the similarity of two texts by this before the softmax.",
        "Task",
        name="pair-scale",
        minimum=1e-3,
        per_head=True,
    )
    embedding: EmbeddingSettings = EmbeddingSettings()


TASKS: Mapping[str, type[TaskSettings]] = {
    "text-classification": ClassificationSettings,
    "image-classification": ClassificationSettings,
    "regression": RegressionSettings,
    "pair-similarity": PairSettings,
    "question-answering": QuestionAnsweringSettings,
    "token-classification": TokenSettings,
    "similarity": SimilaritySettings,
}
"""The settings of each value of `--task`."""


@dataclass(frozen=True)
class SampleSettings:
    """The samples that a record gives: those of `task`, or for None the record itself, a text, a pair of texts or an
    image."""

    task: str | None = option(
        None,
        "Take the samples of a record that this task asks for, as windows of a long text; by default the record itself "
        "is the sample: a text, a pair of texts, an image.",
        "Task",
        choices=tuple(TASKS),
    )
    windows: WindowSettings = WindowSettings()
