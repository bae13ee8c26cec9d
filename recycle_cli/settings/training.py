"""How a head is trained."""

from dataclasses import dataclass
from typing import Literal

from recycle_cli.settings.model import ViewSettings
from recycle_cli.settings.tasks import Metric, TaskSettings


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
class TrainingSettings:
    """How the head is trained. Steps are optimizer steps, shares are of all steps.

    memory      bytes for the rows of a store that is read in windows; None reads in windows only if a map would not do
    order_seed  seeds the shuffling; None takes `seed`, which seeds everything else
    metric      chooses the best checkpoint; None for the task's first
    task        the task's own options; None for its defaults
    """

    epochs: int = 3
    batch_size: int = 32
    learning_rate: float = 5e-5
    weight_decay: float = 0.01
    warmup_share: float = 0.06
    max_grad_norm: float = 1.0
    accumulation: int = 1
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
    task: TaskSettings | None = None

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
