"""Texts by themselves and beside others: what a model makes of a text may depend on nothing but the text."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from recycle_cli.models.eval_mode import evaluating
from recycle_cli.models.forwards import watching
from recycle_cli.models.preprocessor import Inputs
from recycle_cli.models.rounding import TOLERANCE, close
from recycle_cli.models.text.blocks import Block, first
from recycle_cli.models.text.engine import Engine

PADDING_TOLERANCE = 1e-3
"""Largest difference that is rounding between a text alone and a text padded, which other kernels compute; a real
influence is far larger."""

Alone = list[tuple[Tensor, Tensor]]
"""The rows of the last block and the outputs of texts by themselves."""


@dataclass(frozen=True)
class Seen:
    """What the first pass of the check batch gave: the last block's rows (B, L, width), and the outputs."""

    rows: Tensor
    outputs: Tensor


def each_alone(engine: Engine, batch: Inputs, *, longest_first: bool = False) -> Alone:
    """The last block's rows and the outputs of each text of the batch, never beside a longer one."""
    lengths = batch["attention_mask"].sum(1)
    found: dict[int, tuple[Tensor, Tensor]] = {}
    for length in sorted(lengths.unique().tolist(), reverse=longest_first):
        texts = (lengths == length).nonzero().flatten()
        seen = seen_in_full(engine, {name: one[texts, :length] for name, one in batch.items()})
        found |= {text: (seen.rows[place, :length], seen.outputs[place]) for place, text in enumerate(texts.tolist())}
    return [found[text] for text in range(len(lengths))]


def seen_in_full(engine: Engine, batch: Inputs) -> Seen:
    """What the whole model gives for a batch, whose lengths are not kept apart."""
    with last_rows(engine.blocks) as seen:
        outputs = replace(engine, apart=False).full(batch)
    return Seen(seen[0], outputs)


def same_twice(engine: Engine, batch: Inputs) -> bool:
    """Whether the whole model gives the same for a batch again: one that draws at random in eval does not."""
    with evaluating(engine.model), torch.no_grad():
        one, other = (seen_in_full(engine, batch) for _ in range(2))
    return close(one.rows, other.rows, TOLERANCE) and close(one.outputs, other.outputs, TOLERANCE, one.rows)


def leak(
    engine: Engine, batch: Inputs, alone: Alone, together: Seen, tolerance: float = PADDING_TOLERANCE
) -> str | None:
    """What of a text depends on the texts and the padding beside it: `rows` (convolutions over tokens, Fourier mixing,
    windows counted over the padded length), `outputs` alone (pooling after the blocks), or nothing.

    alone     the rows and outputs of each text by itself
    together  those of the batch
    """
    found = None
    for row, ((own_rows, own_outputs), length) in enumerate(zip(alone, batch["attention_mask"].sum(1), strict=True)):
        if not close(own_rows, together.rows[row, :length], tolerance):
            return "rows"
        theirs = together.outputs[row, :length] if engine.per_row else together.outputs[row]
        if not close(own_outputs, theirs, tolerance, own_rows):
            found = "outputs"
    return found


@contextmanager
def last_rows(blocks: Sequence[Block]) -> Iterator[list[Tensor]]:
    """Collect the rows that the last block returns inside the block of `with`."""
    seen: list[Tensor] = []
    last = blocks[-1]
    with watching(last.parts[-1].module, after=lambda args, kwargs, output: seen.append(last.turned(first(output)))):
        yield seen
