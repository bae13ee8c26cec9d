"""The options of each kind of task: a task is built once, from its own."""

from dataclasses import dataclass
from typing import Literal

Metric = Literal["macro_f1", "accuracy", "micro_f1", "mean_average_precision", "rrp", "loss"]


@dataclass(frozen=True)
class TaskSettings:
    """The options of one kind of task."""


@dataclass(frozen=True)
class ClassificationSettings(TaskSettings):
    """`multi_label`: a record may have any number of classes. `class_weights` balanced: rare classes count more."""

    multi_label: bool = False
    class_weights: Literal["none", "balanced"] = "none"


@dataclass(frozen=True)
class EmbeddingSettings:
    """The layer that makes an embedding. `size` None: as wide as its input, which `skip` always is.

    skip     y = x' + sigmoid(g) * (W drop(x') + b), x' = drop(x), g from -4: at first it changes next to nothing
    linear   y = W x' + b
    dropout  the share of x that is dropped; `skip_dropout`: the share of x' dropped before W
    """

    kind: Literal["skip", "linear"] = "skip"
    size: int | None = None
    dropout: float = 0.3
    skip_dropout: float = 0.2


@dataclass(frozen=True)
class SimilaritySettings(TaskSettings):
    """How an embedding is learnt from groups. `margin` belongs to the triplet loss, `temperature` to the contrastive;
    `group_samples`: samples of a group that come into a batch together; `embedding`: the new last layer."""

    loss: Literal["triplet", "supervised-contrastive"] = "triplet"
    margin: float = 0.5
    temperature: float = 0.1
    group_samples: int = 4
    embedding: EmbeddingSettings = EmbeddingSettings()
