"""What each verb is asked to do, beside the corpus and the model."""

from dataclasses import dataclass
from typing import Literal

from recycle_cli.settings.corpus import CorpusSettings
from recycle_cli.settings.model import ViewSettings

Dtype = Literal["float16", "bfloat16", "float32", "int8"]

Codec = Literal["none", "lz4", "zstd", "auto"]


@dataclass(frozen=True)
class PrecomputeSettings:
    """How a store is filled.

    window        samples that are sorted by length together
    batch_tokens  padded tokens a batch; None for what suits the device
    """

    cuts: tuple[str, ...] = ("50%",)
    dtype: Dtype = "float16"
    batch_tokens: int | None = None
    window: int = 16384
    segment_bytes: int = 256 * 2**20
    codec: Codec = "none"
    max_disk: int | None = None
    views: ViewSettings = ViewSettings()


@dataclass(frozen=True)
class Job:
    """Where a fine-tuning reads from and writes to.

    store        None trains from the inputs
    cut          None takes the store's only one
    model_named  the user named the model, so that the store's own is not taken
    """

    data: CorpusSettings
    output: str
    store: str | None = None
    evaluation: CorpusSettings | None = None
    task: str = "text-classification"
    cut: str | None = None
    model_named: bool = False
    overwrite: bool = False
    resume: bool = False
    tensorboard: bool = True


@dataclass(frozen=True)
class PredictSettings:
    """How predictions are made.

    window        samples that are sorted by length together
    batch_tokens  rows a batch; None for what suits the device
    threshold     the score from which a class is predicted, if a record may have several
    parity_check  prove on a few of the first hits that the stored rows are right
    """

    batch_tokens: int | None = None
    window: int = 4096
    write_back: bool = False
    threshold: float = 0.5
    parity_check: bool = True
