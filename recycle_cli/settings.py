"""What belongs together travels together: the options of the commands as plain data, each default written once."""

from dataclasses import dataclass
from typing import Literal

Dtype = Literal["float16", "bfloat16", "float32", "int8"]

Codec = Literal["none", "lz4", "zstd", "auto"]

LABEL_SEPARATOR = "|"
"""Stands between the names of several labels in one column of text, in what is read and what is written; alone, for
none of them."""

Metric = Literal["macro_f1", "accuracy", "micro_f1", "mean_average_precision", "rrp", "loss"]

MINILM = "sentence-transformers/all-MiniLM-L6-v2"


@dataclass(frozen=True)
class CorpusSettings:
    """Where the samples come from and which columns hold what. An unnamed column is found where it is obvious.

    `label_columns`: instead of the one, the columns of several targets, of which a record may lack some.
    `multi_label`: a column of labels may hold several in a record, as a list, or with LABEL_SEPARATOR between them.
    """

    source: tuple[str, ...]
    text_column: str | None = None
    text_pair_column: str | None = None
    label_column: str | None = None
    id_column: str | None = None
    limit: int | None = None
    on_error: Literal["fail", "skip"] = "fail"
    failures: str | None = None
    image_column: str | None = None
    label_columns: tuple[str, ...] = ()
    multi_label: bool = False


@dataclass(frozen=True)
class ImageSettings:
    """How an image model gets its weights and its images. What is unset is as the weights have it.

    weights    a name of torchvision's, a file, or `none`
    transform  a whole transform as JSON, as a store keeps it; the four before it change it
    """

    weights: str | None = None
    resize: tuple[int, ...] = ()
    crop: tuple[int, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    transform: str | None = None
    head_batchnorm: Literal["train", "eval"] = "train"


@dataclass(frozen=True)
class ViewSettings:
    """Augmented views of each image beside the plain one; 0 for none."""

    views: int = 0
    augment: str = "random-resized-crop,flip,color-jitter"


@dataclass(frozen=True)
class ModelSettings:
    """Which pretrained model, and how it computes. `max_length` None: the longest that the model takes."""

    name: str = MINILM
    revision: str | None = None
    max_length: int | None = None
    trust_remote_code: bool = False
    device: str = "auto"
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    images: ImageSettings = ImageSettings()


@dataclass(frozen=True)
class PrecomputeSettings:
    """How a store is filled. `window`: samples sorted by length at once; `batch_tokens`: padded tokens a batch, None as
    suits the device."""

    cuts: tuple[str, ...] = ("50%",)
    dtype: Dtype = "float16"
    batch_tokens: int | None = None
    window: int = 16384
    segment_bytes: int = 256 * 2**20
    codec: Codec = "none"
    max_disk: int | None = None
    views: ViewSettings = ViewSettings()


@dataclass(frozen=True)
class AdapterSettings:
    """Few new weights instead of all: low-rank updates (`rank`, `alpha`), or bottlenecks behind the layers (`width`).

    `layers`: endings of the names of the layers to adapt; none for all. `save` apart writes a LoRA adapter beside the
    merged checkpoint as well; bottlenecks cannot be merged.
    """

    kind: Literal["none", "lora", "bottleneck"] = "none"
    rank: int = 8
    alpha: int = 16
    dropout: float = 0.0
    save: Literal["merged", "apart"] = "merged"
    width: int = 24
    layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class EmbeddingSettings:
    """The layer that makes an embedding. `size` None: as wide as what comes in, which `skip` always is.

    skip     y = x' + sigmoid(g) * (W drop(x') + b), x' = drop(x), g from -4: at first it changes next to nothing
    linear   y = W x' + b
    dropout  the share of x that is dropped; `skip_dropout`: the share of x' dropped before W
    """

    kind: Literal["skip", "linear"] = "skip"
    size: int | None = None
    dropout: float = 0.3
    skip_dropout: float = 0.2


@dataclass(frozen=True)
class SimilaritySettings:
    """How an embedding is learnt from groups. `margin` is the triplet loss's, `temperature` the contrastive one's;
    `group_samples`: samples of a group that come into a batch together; `embedding`: the new last layer."""

    loss: Literal["triplet", "supervised-contrastive"] = "triplet"
    margin: float = 0.5
    temperature: float = 0.1
    group_samples: int = 4
    embedding: EmbeddingSettings = EmbeddingSettings()


@dataclass(frozen=True)
class TrainingSettings:
    """How the head is trained. Steps are optimizer steps, shares are of all steps.

    `memory`: bytes for the rows of a store that is read in windows; None reads so only where a map would not do.
    `order_seed`: of the shuffling; None for `seed`, of which everything else is. `metric`: None for the task's first.
    """

    epochs: int = 3
    batch_size: int = 32
    learning_rate: float = 5e-5
    weight_decay: float = 0.01
    warmup_share: float = 0.06
    max_grad_norm: float = 1.0
    accumulation: int = 1
    class_weights: Literal["none", "balanced"] = "none"
    metric: Metric | None = None
    patience: int = 0
    eval_steps: int = 0
    save_steps: int = 0
    seed: int = 0
    order_seed: int | None = None
    on_missing: Literal["fail", "compute", "skip"] = "fail"
    parity_check: bool = True
    memory: int | None = None
    in_memory: bool = False
    adapter: AdapterSettings = AdapterSettings()
    views: ViewSettings = ViewSettings()
    mixup: float = 0.0
    cutmix: float = 0.0
    similarity: SimilaritySettings = SimilaritySettings()

    @property
    def shuffle_seed(self) -> int:
        """What the order of the samples is drawn from."""
        return self.seed if self.order_seed is None else self.order_seed


@dataclass(frozen=True)
class HeadSettings:
    """One of several heads that train on the same batches: its RUN is OUTPUT/name, its labels are in `label_column`."""

    name: str
    training: TrainingSettings
    label_column: str | None = None


@dataclass(frozen=True)
class PredictSettings:
    """How predictions are made. `window`: samples sorted by length at once; `batch_tokens`: rows a batch, None as suits
    the device; `threshold`: the score from which on a class is predicted where a sample may have several;
    `parity_check`: prove on a few of the first hits that the stored rows are right."""

    batch_tokens: int | None = None
    window: int = 4096
    write_back: bool = False
    threshold: float = 0.5
    parity_check: bool = True
