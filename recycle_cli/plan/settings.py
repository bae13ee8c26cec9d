"""Settings of a plan, as plain data. Nothing heavy is imported here."""

from dataclasses import dataclass

from recycle_cli.settings import Dtype, PrecomputeSettings, TrainingSettings, ViewSettings

_FILL, _TRAIN = PrecomputeSettings(), TrainingSettings()

TEXTS, IMAGES = 512, 128
"""Default number of texts or images that are tried."""


@dataclass(frozen=True)
class PlanSettings:
    """`sample` is the number of records that are run for timing, `batches` the number of training batches in each of
    the `repetitions`; there are more if steps are short."""

    cuts: tuple[str, ...] = ("25%", "50%", "75%", "100%")
    dtype: Dtype = _FILL.dtype
    epochs: int = _TRAIN.epochs
    batch_size: int = _TRAIN.batch_size
    batch_tokens: int | None = _FILL.batch_tokens
    sample: int | None = None
    batches: int = 4
    repetitions: int = 2
    seed: int = 0
    views: ViewSettings = _FILL.views
