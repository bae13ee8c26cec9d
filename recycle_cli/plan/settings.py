"""How much a plan tries out, as plain data; nothing heavy is imported here."""

from dataclasses import dataclass

from recycle_cli.settings import Dtype, PrecomputeSettings, TrainingSettings

_FILL, _TRAIN = PrecomputeSettings(), TrainingSettings()


@dataclass(frozen=True)
class PlanSettings:
    """`sample`: texts that are run for timing, `batches`: training batches of them in each of the `repetitions`."""

    cuts: tuple[str, ...] = ("25%", "50%", "75%", "100%")
    dtype: Dtype = _FILL.dtype
    epochs: int = _TRAIN.epochs
    batch_size: int = _TRAIN.batch_size
    batch_tokens: int | None = _FILL.batch_tokens
    sample: int = 512
    batches: int = 4
    repetitions: int = 2
    seed: int = 0
