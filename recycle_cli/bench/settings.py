"""Settings of a bench, as plain data. Nothing heavy is imported here."""

from dataclasses import dataclass

from recycle_cli.settings import Codec, Dtype, PrecomputeSettings

VERBS = ("precompute", "read", "finetune", "predict")
"""The verbs of `recycle bench all`. `heads` trains sixteen heads a repetition, so it runs only if it is named."""

HEADS = 8
"""Number of heads that are trained from one read, and again one after another."""

RECORDS, IMAGES = 2048, 512
"""Default number of texts or images that a bench reads: enough for minutes of work, not hours."""

_FILL = PrecomputeSettings()


@dataclass(frozen=True)
class BenchSettings:
    """`batches` is the number of training batches a repetition. The first of `cuts` is compared with all baselines."""

    verbs: tuple[str, ...] = VERBS
    cuts: tuple[str, ...] = _FILL.cuts
    dtype: Dtype = _FILL.dtype
    batch_size: int = 32
    batch_tokens: int | None = _FILL.batch_tokens
    batches: int = 6
    repetitions: int = 5
    seed: int = 0
    codec: Codec = _FILL.codec
