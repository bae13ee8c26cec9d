"""How layers freeze while a head trains."""

from dataclasses import dataclass
from typing import Literal

from recycle_cli.settings.option import option
from recycle_cli.settings.reading import size

Rule = Literal["none", "linear", "gradient-norm", "autofreeze", "bound"]


@dataclass(frozen=True)
class FreezeSettings:
    """Which layers stop training while the others go on, and what becomes of the rows behind them.

    interval  steps between two decisions of a rule that watches gradients; None for the rule's own
    dtype     of the rows that are written; None for the store's, or float16 without one
    max_disk  bytes of the rows that are read and of those that are written, together; None for as many as are free
    """

    rule: Rule = option(
        "none",
        "Freeze blocks from the first on while the others train: as time goes by (linear, bound), or when their "
        "gradients change little (gradient-norm, autofreeze); see docs/freezing.md.",
        "Freezing",
        name="freeze",
    )
    start: float = option(
        0.5,
        "With linear: freeze nothing before this share of the epochs has passed.",
        "Freezing",
        name="freeze-start",
        minimum=0.0,
        maximum=1.0,
    )
    level: float = option(
        1.0,
        "With linear: freeze this share of the layers by the end of the training.",
        "Freezing",
        name="freeze-level",
        minimum=0.0,
        maximum=1.0,
    )
    unit: Literal["block", "leaf"] = option(
        "block",
        "With linear: freeze whole blocks, or modules that hold weights one by one (leaf), as Composer does.",
        "Freezing",
        name="freeze-unit",
    )
    reading: Literal["argmin", "frontier", "up-to"] = option(
        "frontier",
        "With gradient-norm: freeze the block that changes least (argmin), only if it is the first that trains "
        "(frontier), or all up to it (up-to).",
        "Freezing",
        name="freeze-rule",
    )
    interval: int | None = option(
        None,
        "With gradient-norm and autofreeze: decide every so many steps; by default once an epoch with gradient-norm, "
        "20 times in all with autofreeze.",
        "Freezing",
        name="freeze-interval",
        minimum=1,
    )
    votes: Literal["mean", "weighted", "weighted-labels"] = option(
        "mean",
        "With several processes and gradient-norm or autofreeze: decide by the gradients of all samples (mean), or let "
        "each process decide by its own and vote, weighted by its samples, or by how near its labels are to all of "
        "them as well.",
        "Freezing",
        name="freeze-votes",
    )
    share: float = option(
        1 / 3,
        "With bound: after each epoch, freeze this share of the blocks that still train.",
        "Freezing",
        name="freeze-share",
        minimum=0.0,
        maximum=1.0,
    )
    anneal: bool = option(
        False,
        "Let the learning rate of a block fall to 0 by the time it freezes.",
        "Freezing",
        name="freeze-anneal",
    )
    cache: Literal["never", "auto", "always"] = option(
        "auto",
        "Write the rows behind frozen blocks in the epoch after they froze, and read them in later epochs in place of "
        "running the blocks: whenever that is possible (always), if it saves time (auto), or not at all (never).",
        "Freezing",
        name="freeze-cache",
    )
    dtype: Literal["float16", "bfloat16", "float32", "int8", "int4"] | None = option(
        None,
        "Number format of the rows that --freeze-cache writes; by default that of STORE, or float16 without one.",
        "Freezing",
        name="freeze-dtype",
    )
    max_disk: int | None = option(
        None,
        "Most that the rows of --freeze-cache may take on the disk, those being read and those being written together, "
        "such as 20GiB; by default what is free.",
        "Freezing",
        name="max-disk",
        parser=size,
        changes_result=False,
    )
    keep_scratch: bool = option(
        False,
        "Keep the last rows of --freeze-cache in RUN/scratch when the training has finished.",
        "Freezing",
        name="keep-scratch",
        changes_result=False,
    )
    plot: str | None = option(
        None,
        "Draw the cut, the loss and the seconds of each epoch into this .png or .svg file.",
        "Freezing",
        name="freeze-plot",
        changes_result=False,
    )

    @property
    def freezes(self) -> bool:
        """Whether anything freezes while the others train."""
        return self.rule != "none"
