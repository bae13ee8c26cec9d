"""Settings of `bench`, `plan` and `layers`."""

from dataclasses import dataclass
from typing import Literal

from recycle_cli.settings.model import ViewSettings
from recycle_cli.settings.option import option, same
from recycle_cli.settings.reading import counts
from recycle_cli.settings.tasks import SampleSettings
from recycle_cli.settings.training import TrainingSettings
from recycle_cli.settings.verbs import Codec, Dtype, PrecomputeSettings

VERBS = ("precompute", "read", "finetune", "predict")
"""The parts of `recycle bench all`. `serve`, which starts a server each time, `heads`, which trains sixteen heads a
repetition, `freezing`, which trains for several epochs, and `contention`, which keeps cores busy, run only if they are
named."""

HEADS = 8
"""Heads that a bench trains from one read, and one after another."""

BENCH_TEXTS, BENCH_IMAGES = 2048, 512
"""Texts or images that a bench reads by default: minutes of work, not hours."""

PLAN_TEXTS, PLAN_IMAGES = 512, 128
"""Texts or images that a plan tries the cuts on by default."""


@dataclass(frozen=True)
class BenchSettings:
    """How `recycle bench` measures. `batches`: the training batches of one repetition. Only the first of `cuts` is
    compared with every baseline. `epochs`, `rule`: of trainings whose layers freeze, or by several processes."""

    verbs: tuple[str, ...] = VERBS
    cuts: tuple[str, ...] = same(
        PrecomputeSettings,
        "cuts",
        help="Cut the model after this: a number of blocks (3), a module (layer3), or a share of the blocks (50%). May "
        "be repeated; only the first cut is compared with every baseline.",
    )
    dtype: Dtype = same(PrecomputeSettings, "dtype")
    batch_size: int = same(TrainingSettings, "batch_size")
    batch_tokens: int | None = same(PrecomputeSettings, "batch_tokens")
    batches: int = option(6, "Train on this many batches in each repetition.", "Measuring", minimum=1)
    repetitions: int = option(
        5, "Repeat every measurement this many times, after one run to warm up.", "Measuring", minimum=1, usual=True
    )
    seed: int = option(0, "Seed of made-up data, new weights and the order of samples.", "Measuring", minimum=0)
    codec: Codec = same(PrecomputeSettings, "codec")
    epochs: int = option(4, "With freezing: train for this many epochs.", "Measuring", minimum=1)
    rule: Literal["linear", "gradient-norm", "autofreeze", "bound"] = option(
        "bound", "With freezing: freeze blocks by this rule (docs/freezing.md).", "Measuring", name="freeze"
    )
    ranks: tuple[int, ...] = option(
        (),
        "With finetune: measure trainings by so many processes instead, such as 1,2: what they send, and their steps.",
        "Measuring",
        parser=counts,
    )
    samples: SampleSettings = SampleSettings()


@dataclass(frozen=True)
class LayersSettings:
    """The size of images and the stored dtype for which the cuts of a model are listed."""

    image_size: int | None = option(
        None, "For an image model: the side of the images; by default as its weights expect.", "Images", minimum=1
    )
    dtype: Dtype = same(PrecomputeSettings, "dtype")


@dataclass(frozen=True)
class PlanSettings:
    """How `recycle plan` forecasts. `sample`: the records that are run for timing; `batches`: the least number of
    training batches in each of the `repetitions`, more if steps are short."""

    cuts: tuple[str, ...] = option(
        ("25%", "50%", "75%", "100%"),
        "Try this cut: a number of blocks (3; 0 is the embeddings' output), a module (layer3), a share of the blocks "
        "(50%), every state (every) or every second (every:2), or a list (0,2,4). May be repeated.",
        "Model and cut",
        name="cut",
        usual=True,
    )
    dtype: Dtype = same(PrecomputeSettings, "dtype")
    epochs: int = same(TrainingSettings, "epochs", help="Number of passes over the data to plan for.")
    batch_size: int = same(TrainingSettings, "batch_size")
    batch_tokens: int | None = same(PrecomputeSettings, "batch_tokens")
    sample: int | None = option(
        None,
        f"Try the cuts on this many records; by default {PLAN_TEXTS} texts or {PLAN_IMAGES} images.",
        "Measuring",
        minimum=1,
        usual=True,
    )
    batches: int = option(
        4,
        "Train on at least this many batches in each repetition; more are taken if steps are short.",
        "Measuring",
        minimum=1,
    )
    states: bool = option(
        False,
        "Forecast heads that read several states beside the cuts: a ladder over every second, a pooled head over all.",
        "Measuring",
    )
    repetitions: int = same(BenchSettings, "repetitions", default=2)
    seed: int = 0
    views: ViewSettings = ViewSettings()
    samples: SampleSettings = SampleSettings()
