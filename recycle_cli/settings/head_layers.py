"""The options of the layers that train: the model's own, or a small network in their place."""

from dataclasses import dataclass
from typing import Literal

from recycle_cli.settings.option import option
from recycle_cli.settings.reading import poolings


@dataclass(frozen=True)
class LadderSettings:
    """The sizes of a ladder.

    width   of the ladder's rows; None for a quarter of the width of the rows that it reads
    blocks  of the ladder; None for one fewer than the cuts that it reads, at least 1
    """

    width: int | None = option(
        None,
        "For --head ladder: the width of its rows; by default a quarter of that of the stored ones.",
        "Task",
        name="ladder-width",
        minimum=1,
        per_head=True,
    )
    blocks: int | None = option(
        None,
        "For --head ladder: its number of blocks; by default one fewer than the cuts that it reads, at least 1.",
        "Task",
        name="ladder-blocks",
        minimum=1,
        per_head=True,
    )


@dataclass(frozen=True)
class PooledSettings:
    """What a pooled head reads and how it is fitted.

    pool     the vectors of each state; none for those that the store holds, or mean, cls and max
    hidden   the width of a layer between the vectors and the outputs, which trains in epochs; None for none: a linear
             head, which is solved
    dropout  before and behind a hidden layer
    l2       lambda of a linear head, whose mean loss plus lambda / 2 times the squares of its weights is least; None
             tries several, and takes the best on --eval
    lasso    how much the norms of the states' parts of a linear head cost, as a share of what would leave none
    """

    pool: tuple[str, ...] = option(
        (),
        "For --head pooled: read these vectors of each state, of mean,cls,max,last; by default those of the store, or "
        "mean,cls,max.",
        "Task",
        name="pool",
        parser=poolings,
    )
    hidden: int | None = option(
        None,
        "For --head pooled: put a layer of this width between the vectors and the outputs, and train in epochs; by "
        "default the head is linear, and solved.",
        "Task",
        name="pooled-hidden",
        minimum=1,
        per_head=True,
    )
    dropout: float = option(
        0.5,
        "For --pooled-hidden: dropout before and behind that layer.",
        "Task",
        name="pooled-dropout",
        minimum=0.0,
        maximum=1.0,
        per_head=True,
    )
    l2: float | None = option(
        None,
        "For a linear --head pooled: lambda of its squared weights; by default the one of several that is best on "
        "--eval, or without it 0.0001 for each number that it reads.",
        "Task",
        name="pooled-lambda",
        minimum=0.0,
        per_head=True,
    )
    lasso: float = option(
        0.0,
        "For a linear --head pooled: leave out states that it does not need, the more the nearer to 1; 0 keeps all.",
        "Task",
        name="pooled-lasso",
        minimum=0.0,
        maximum=1.0,
        per_head=True,
    )


@dataclass(frozen=True)
class HeadLayerSettings:
    """The layers that train.

    own     the model's blocks after the cut, and the task layer that transformers has for the model
    mlp     the blocks of the bare encoder after the cut, and the pooled head of Embedding Recycling
    ladder  a small network that reads the rows of several cuts, and no layer of the model
    pooled  a linear head, or one with a hidden layer, that reads pooled vectors of several cuts, and no layer either
    save    of the latter two `head` for the head alone, `whole` for the pretrained model as well
    """

    kind: Literal["own", "mlp", "ladder", "pooled"] = option(
        "own",
        "Put the model's own classifier behind its blocks (own), pool the rows of any encoder, T5's and BART's too, "
        "and put two linear layers behind that (mlp), or replace the model's blocks by a small network that reads the "
        "rows of several cuts (ladder), or by a linear head that reads pooled vectors of them (pooled).",
        "Task",
        name="head",
    )
    pooling: Literal["mean", "cls"] = option(
        "mean",
        "For --head mlp: take the mean over a text's tokens (mean), or the first token (cls).",
        "Task",
        name="head-pooling",
    )
    save: Literal["head", "whole"] = option(
        "head",
        "For --head ladder and pooled: keep in the RUN the head, and of its pretrained model name and digests (head), "
        "or all of it (whole).",
        "Task",
        name="save",
        per_head=True,
        changes_result=False,
    )
    ladder: LadderSettings = LadderSettings()
    pooled: PooledSettings = PooledSettings()

    @property
    def reads_states(self) -> bool:
        """Whether it reads several of the model's states, and has nothing else of the model."""
        return self.kind in ("ladder", "pooled")

    @property
    def is_solved(self) -> bool:
        """Whether its optimum is computed, without epochs; unless its task learns from pairs of samples."""
        return self.kind == "pooled" and self.pooled.hidden is None
