"""Parts of a forward pass over one and the same model: stop it after the trunk, start it at the head, or both."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from recycle_cli.errors import ModelError
from recycle_cli.models.forwards import computing, watching
from recycle_cli.models.text.blocks import Block, Part, Place, first, rows_of, with_rows
from recycle_cli.models.text.stem import Stem, skipped


class _Stop(Exception):  # noqa: N818 - it reports no error: it ends a forward pass that has given all we want
    """Leaves the forward pass once the deepest cut has been reached."""


def run_trunk(
    model: nn.Module, blocks: Sequence[Block], inputs: Mapping[str, Any], cuts: Sequence[int]
) -> dict[int, Tensor]:
    """Rows (samples, tokens, width) at each cut, from one forward pass that ends at the deepest.

    A cut before the last block takes what the next block is given, so that whatever the model does between two blocks
    belongs to the trunk; the cut after the last block takes its output, so that a final norm belongs to the head. If
    blocks are of several modules, each cut takes the output of the last one before it, and there is no cut 0.
    """
    tokens = inputs["input_ids"].shape[1]
    rows: dict[int, Tensor] = {}

    def keep(cut: int, value: Tensor) -> None:
        # Longformer pads to its window inside; the rows beyond the batch's own tokens are not the sample's.
        rows[cut] = value[:, :tokens].contiguous()
        if cut == max(cuts):
            raise _Stop

    with ExitStack() as stack:
        for cut in cuts:
            stack.enter_context(at_cut(blocks, cut, keep))
        try:
            model(**inputs)
        except _Stop:
            return rows
    raise AssertionError("the forward pass went by the deepest cut")


def run_head(
    model: nn.Module,
    blocks: Sequence[Block],
    inputs: Mapping[str, Any],
    cut: int,
    rows: Tensor,
    stem: Stem | None = None,
) -> Any:
    """The model's output from the rows at `cut`; of `inputs` it uses the lengths alone, as ids and mask."""
    with begun_at(cut, rows, blocks, stem):
        return model(**inputs)


@contextmanager
def begun_at(cut: int, rows: Tensor, blocks: Sequence[Block], stem: Stem | None = None) -> Iterator[None]:
    """Inside the block a forward pass of the model begins with `rows` at `cut`, whatever its inputs are.

    The blocks before the cut stay in place but hand on what they are given, so that the model's own bookkeeping by
    block number (masks by layer type, groups, caches) holds; the rows enter before block `cut`. The `stem` would give
    its output to a block that hands it on unread: it computes nothing either. At cut 0 it returns the rows: a model may
    read them beside its first block, as DeBERTa-v2's convolution does.
    """
    entered: list[nn.Module] = []
    injected = cut < len(blocks) and blocks[cut].closed
    entry = blocks[cut].parts[0].module if injected else blocks[cut - 1].parts[-1].module
    with ExitStack() as stack:
        stack.enter_context(skipped(stem, rows, replaced=cut == 0))
        for number, block in enumerate(blocks[:cut]):
            last = number == cut - 1 and not injected
            stack.enter_context(handing_on(block, rows if last else None))
        if injected:
            stack.enter_context(_injecting(blocks[cut], rows))
        stack.enter_context(watching(entry, lambda args, kwargs: entered.append(entry)))
        yield
        if not entered:
            raise ModelError(
                f"the layer at which the rows of cut {cut} enter ({type(entry).__name__}) was skipped: this model "
                "leaves out layers at random in training; set its layerdrop to 0 in config.json"
            )


def at_cut(blocks: Sequence[Block], cut: int, keep: Callable[[int, Tensor], None]) -> AbstractContextManager[None]:
    """Inside a block `keep` the rows (samples, tokens, width) at a cut, of every pass that reaches it."""
    turned = blocks[0].turned
    if cut < len(blocks) and blocks[cut].closed:
        return watching(blocks[cut].parts[0].module, lambda args, kwargs: keep(cut, turned(rows_of(args, kwargs))))
    return watching(
        blocks[cut - 1].parts[-1].module, after=lambda args, kwargs, output: keep(cut, turned(first(output)))
    )


def _injecting(block: Block, rows: Tensor) -> AbstractContextManager[None]:
    def before(args: Any, kwargs: Any) -> Any:
        return with_rows(args, kwargs, _like(rows, rows_of(args, kwargs), block))

    return watching(block.parts[0].module, before)


@contextmanager
def handing_on(block: Block, rows: Tensor | None = None) -> Iterator[None]:
    """Let the block compute nothing and return the rows it is given, or `rows`, in its own form."""
    with ExitStack() as stack:
        for number, part in enumerate(block.parts):
            given = rows if number == len(block.parts) - 1 else None
            stack.enter_context(computing(part.module, partial(_handing_on, part, block, given)))
        yield


def _handing_on(part: Part, block: Block, rows: Tensor | None, forward: Callable[..., Any]) -> Callable[..., Any]:
    def hand_on(*args: Any, **kwargs: Any) -> Any:
        given = rows_of(args, kwargs)
        handed = given if rows is None else _like(rows, given, block)
        return part.output(handed, dict(_extras(part, forward, args, kwargs)))

    return hand_on


def _extras(part: Part, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[tuple[Place, Any]]:
    """The values that the module returns beside its rows. T5's first block makes the position bias of all: it has to
    run."""
    computed: Any = None
    if any(extra.computed for extra in part.extras.values()):
        with torch.no_grad():
            computed = forward(*args, **kwargs)
    for place, extra in part.extras.items():
        if extra.computed:
            yield place, computed[place]
        elif extra.argument is None:
            yield place, extra.constant
        else:
            yield place, args[extra.argument] if isinstance(extra.argument, int) else kwargs[extra.argument]


def _like(rows: Tensor, given: Tensor, block: Block) -> Tensor:
    """The rows in the type and the order of axes of the hidden states they replace, lengthened with zeros if the model
    pads inside."""
    beyond = block.turned(given).shape[1] - rows.shape[1]
    rows = rows.to(given.dtype)
    rows = nn.functional.pad(rows, (0, 0, 0, beyond)) if beyond else rows
    # XLM multiplies the output of its blocks in place.
    return block.turned(rows if block.closed else rows.clone())
