"""How much a plan tries out, as plain data; nothing heavy is imported here."""

from dataclasses import dataclass

from recycle_cli.settings import Dtype, PrecomputeSettings, TrainingSettings, ViewSettings

_FILL, _TRAIN = PrecomputeSettings(), TrainingSettings()

TEXTS, IMAGES = 512, 128
"""Records that are tried unless told otherwise."""


@dataclass(frozen=True)
class PlanSettings:
    """`sample`: records that are run for timing, `batches`: training batches of them in each of the `repetitions`, of
    which there are more where steps are short."""

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
