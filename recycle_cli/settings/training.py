"""How a head is trained."""

from dataclasses import dataclass
from typing import Literal

from recycle_cli.settings.freezing import FreezeSettings
from recycle_cli.settings.head_layers import HeadLayerSettings
from recycle_cli.settings.model import ViewSettings
from recycle_cli.settings.option import option
from recycle_cli.settings.reading import names, size
from recycle_cli.settings.tasks import Metric, TaskSettings

RATE, LADDER_RATE, POOLED_RATE = 5e-5, 2e-3, 3e-4
"""AdamW's peak learning rates by default: of pretrained layers, and of a ladder and a pooled head, which begin with
random ones."""

OnMissing = Literal["fail", "compute", "skip"]


@dataclass(frozen=True)
class AdapterSettings:
    """Train few new weights instead of all: low-rank updates (`rank`, `alpha`), or bottlenecks behind layers (`width`).

    layers  endings of the names of the layers to adapt; () for all
    save    `apart` writes a LoRA adapter beside the merged checkpoint; bottlenecks, which cannot be merged, need it
    """

    kind: Literal["none", "lora", "bottleneck"] = option(
        "none",
        "Freeze the pretrained layers of the head and train low-rank updates (lora) or bottleneck layers (bottleneck).",
        "Adapters",
        name="adapter",
        per_head=True,
    )
    rank: int = option(8, "Rank of the updates of lora.", "Adapters", name="adapter-rank", minimum=1, per_head=True)
    alpha: int = option(
        16,
        "Scale of the updates of lora: they are multiplied by this and divided by their rank.",
        "Adapters",
        name="adapter-alpha",
        minimum=1,
        per_head=True,
    )
    dropout: float = option(
        0.0,
        "Dropout before the adapters.",
        "Adapters",
        name="adapter-dropout",
        minimum=0.0,
        maximum=1.0,
        per_head=True,
    )
    save: Literal["merged", "apart"] = option(
        "merged",
        "Merge lora into the RUN's weights (merged), or keep the adapter in RUN/adapter as well (apart); bottleneck "
        "needs apart.",
        "Adapters",
        name="adapter-save",
        per_head=True,
    )
    width: int = option(
        24, "Width of the bottleneck layers.", "Adapters", name="adapter-width", minimum=1, per_head=True
    )
    layers: tuple[str, ...] = option(
        (),
        "Adapt only the layers whose names end in one of these, such as query,value; by default all.",
        "Adapters",
        name="adapter-layers",
        parser=names,
        per_head=True,
    )


@dataclass(frozen=True)
class TrainingSettings:
    """How the head is trained. Steps are optimizer steps, shares are of all steps.

    memory      bytes for the rows of a store that is read in windows; None reads in windows only if a map would not do
    order_seed  seeds the shuffling; None takes `seed`, which seeds everything else
    metric      chooses the best checkpoint; None for the task's first
    task        the task's own options; None for its defaults
    """

    epochs: int = option(
        3, "Number of passes over the training data.", "Training", minimum=1, usual=True, per_head=True
    )
    batch_size: int = option(32, "Number of samples in a batch.", "Training", minimum=1, usual=True)
    learning_rate: float | None = option(
        None,
        f"Peak learning rate; by default {RATE:g}, of a ladder {LADDER_RATE:g}, pooled {POOLED_RATE:g}.",
        "Training",
        minimum=0.0,
        usual=True,
        per_head=True,
    )
    optimizer: Literal["adamw", "sgd"] = option(
        "adamw",
        "AdamW, or stochastic gradient descent with momentum (sgd), which needs --learning-rate.",
        "Training",
        per_head=True,
    )
    momentum: float = option(
        0.9,
        "Momentum of sgd.",
        "Training",
        minimum=0.0,
        maximum=1.0,
        per_head=True,
    )
    weight_decay: float = option(
        0.01,
        "Weight decay, for weight matrices only: decoupled with adamw, added to the gradient with sgd.",
        "Training",
        minimum=0.0,
        per_head=True,
    )
    warmup_share: float = option(
        0.06,
        "Share of the steps in which the learning rate rises from 0; in the others it falls back to 0.",
        "Training",
        minimum=0.0,
        maximum=1.0,
        per_head=True,
    )
    max_grad_norm: float = option(
        1.0, "Clip the norm of the gradient to this; 0 never clips.", "Training", minimum=0.0, per_head=True
    )
    accumulation: int = option(
        1, "Accumulate the gradients of this many batches for an optimizer step.", "Training", minimum=1
    )
    metric: Metric | None = option(
        None,
        "Keep the checkpoint that is best by this metric; by default the first of its task (docs/tasks.md).",
        "Training",
        per_head=True,
    )
    patience: int = option(
        0,
        "Stop at the end of an epoch after this many evaluations without improvement; 0 never stops early.",
        "Training",
        minimum=0,
        usual=True,
        per_head=True,
    )
    eval_steps: int = option(
        0,
        "Evaluate every so many steps as well as after each epoch; 0 evaluates only after epochs.",
        "Training",
        minimum=0,
        per_head=True,
    )
    save_steps: int = option(
        0,
        "Save a checkpoint every so many steps as well as after each epoch; 0 saves only after epochs.",
        "Training",
        minimum=0,
        changes_result=False,
    )
    seed: int = option(
        0,
        "Seed of new layers, shuffling and dropout.",
        "Training",
        minimum=0,
        maximum=2**32 - 1,
        usual=True,
        per_head=True,
    )
    order_seed: int | None = option(
        None, "Seed of shuffling alone; by default --seed.", "Training", minimum=0, maximum=2**32 - 1
    )
    on_missing: OnMissing = option(
        "fail",
        "If the store lacks a sample, stop (fail), compute and add it (compute), or leave it out (skip).",
        "Store",
    )
    parity_check: bool = option(
        True, "Compute a few samples again and compare them with what the store holds.", "Store", changes_result=False
    )
    memory: int | None = option(
        None,
        "Read the store in shuffled windows of at most this size, such as 4GiB; by default only if it is compressed, "
        "remote or larger than the free memory.",
        "Store",
        parser=size,
        changes_result=False,
    )
    in_memory: bool = option(
        False, "Read all activations into memory before training starts.", "Store", changes_result=False
    )
    freezing: FreezeSettings = FreezeSettings()
    adapter: AdapterSettings = AdapterSettings()
    views: ViewSettings = ViewSettings()
    mixup: float = option(
        0.0,
        "Mix the stored activations of two images, in shares drawn from Beta(a, a) for this a; 0 never mixes.",
        "Images",
        minimum=0.0,
        per_head=True,
    )
    cutmix: float = option(
        0.0,
        "Replace a box of a stored feature map by another image's, in shares drawn from Beta(a, a) for this a; 0 never "
        "does.",
        "Images",
        minimum=0.0,
        per_head=True,
    )
    task: TaskSettings | None = None

    @property
    def layers(self) -> HeadLayerSettings:
        """The layers that train."""
        return HeadLayerSettings() if self.task is None else self.task.layers

    @property
    def highest_rate(self) -> float:
        """The highest learning rate."""
        if self.learning_rate is not None:
            return self.learning_rate
        return {"ladder": LADDER_RATE, "pooled": POOLED_RATE}.get(self.layers.kind, RATE)

    @property
    def shuffle_seed(self) -> int:
        """The seed of the samples' order."""
        return self.seed if self.order_seed is None else self.order_seed


@dataclass(frozen=True)
class HeadSettings:
    """One of several heads that train on the same batches: its RUN is OUTPUT/name, its labels are in `label_column`."""

    name: str
    training: TrainingSettings
    label_column: str | None = None
