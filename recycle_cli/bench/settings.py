"""What a bench measures and how often, as plain data; nothing heavy is imported here."""

from dataclasses import dataclass

from recycle_cli.settings import Codec, Dtype, PrecomputeSettings

VERBS = ("precompute", "read", "finetune", "predict")
"""What a bench of `all` measures; `heads` trains sixteen heads a repetition, so it is measured where it is named."""

HEADS = 8
"""Heads that are trained from one read, and one after another."""

RECORDS, IMAGES = 2048, 512
"""Texts or images of the corpus that a bench reads unless told otherwise: minutes of work, not hours."""

_FILL = PrecomputeSettings()


@dataclass(frozen=True)
class BenchSettings:
    """`batches`: batches of a training epoch in one repetition. The first of `cuts` is set against every baseline."""

    verbs: tuple[str, ...] = VERBS
    cuts: tuple[str, ...] = _FILL.cuts
    dtype: Dtype = _FILL.dtype
    batch_size: int = 32
    batch_tokens: int | None = _FILL.batch_tokens
    batches: int = 6
    repetitions: int = 5
    seed: int = 0
    codec: Codec = _FILL.codec
