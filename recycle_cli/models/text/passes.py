"""Parts of a forward pass over one and the same model: stop it after the trunk, start it at the head, or both."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from recycle_cli.errors import ModelError
from recycle_cli.models.text.blocks import Block, first, rows_of, with_rows
from recycle_cli.models.text.stem import Stem, skipped


class _Stop(Exception):  # noqa: N818 - it reports no error: it ends a forward pass that has given all we want
    """Leaves the forward pass once the deepest cut has been reached."""


def run_trunk(
    model: nn.Module, blocks: Sequence[Block], inputs: Mapping[str, Any], cuts: Sequence[int]
) -> dict[int, Tensor]:
    """Rows (samples, tokens, width) at each cut >= 1, from one forward pass that ends at the deepest.

    A cut before the last block takes what the next block is given, so that whatever the model does between two blocks
    belongs to the trunk; the cut after the last block takes its output, so that a final norm belongs to the head.
    """
    tokens = inputs["input_ids"].shape[1]
    rows: dict[int, Tensor] = {}

    def keep(cut: int, value: Tensor) -> None:
        # Longformer pads to its window inside; the rows beyond the batch's own tokens are not the sample's.
        rows[cut] = value[:, :tokens]
        if cut == max(cuts):
            raise _Stop

    with ExitStack() as hooks:
        for cut in cuts:
            hooks.callback(_at_cut(blocks, cut, keep).remove)
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
    """The model's output from the rows at `cut` (>= 1); of `inputs` it uses the lengths alone, as ids and mask."""
    with begun_at(cut, rows, blocks, stem):
        return model(**inputs)


@contextmanager
def begun_at(cut: int, rows: Tensor, blocks: Sequence[Block], stem: Stem | None = None) -> Iterator[None]:
    """Inside the block a forward pass of the model begins with `rows` at `cut` (>= 1), whatever its inputs are.

    The blocks before the cut stay in place but hand on what they are given, so that the model's own bookkeeping by
    block number (masks by layer type, groups, caches) holds; the rows enter before block `cut`. The `stem` would give
    its output to a block that hands it on unread: it computes nothing either.
    """
    entry = blocks[min(cut, len(blocks) - 1)].module
    entered: list[nn.Module] = []
    with ExitStack() as stack:
        stack.enter_context(skipped(stem, rows))
        for number, block in enumerate(blocks[:cut]):
            last = number == len(blocks) - 1
            stack.enter_context(handing_on(block, rows if last else None))
        if cut < len(blocks):
            stack.callback(_injecting(entry, rows).remove)
        stack.callback(entry.register_forward_pre_hook(lambda module, args: entered.append(module)).remove)
        yield
        if not entered:
            raise ModelError(
                f"the layer at which the rows of cut {cut} enter ({type(entry).__name__}) was skipped: this model "
                "leaves out layers at random in training; set its layerdrop to 0 in config.json"
            )


def _at_cut(blocks: Sequence[Block], cut: int, keep: Any) -> Any:
    if cut == len(blocks):

        def after(module: nn.Module, args: Any, output: Any) -> None:
            keep(cut, first(output))

        return blocks[-1].module.register_forward_hook(after)

    def before(module: nn.Module, args: Any, kwargs: Any) -> None:
        keep(cut, rows_of(args, kwargs))

    return blocks[cut].module.register_forward_pre_hook(before, with_kwargs=True)


def _injecting(module: nn.Module, rows: Tensor) -> Any:
    def before(module: nn.Module, args: Any, kwargs: Any) -> Any:
        return with_rows(args, kwargs, _like(rows, rows_of(args, kwargs)))

    return module.register_forward_pre_hook(before, with_kwargs=True)


@contextmanager
def handing_on(block: Block, rows: Tensor | None = None) -> Iterator[None]:
    """Let the block compute nothing and return the rows it is given, or `rows`, in its own form."""
    module = block.module
    forward = module.forward

    def hand_on(*args: Any, **kwargs: Any) -> Any:
        given = rows_of(args, kwargs)
        handed = given if rows is None else _like(rows, given)
        return handed if block.extras is None else (handed, *_extras(block, forward, args, kwargs))

    # An attribute of the instance: the module stays the same object, with its name, attributes and state dict.
    own = module.__dict__.get("forward")
    module.__dict__["forward"] = hand_on
    try:
        yield
    finally:
        del module.__dict__["forward"]
        if own is not None:
            module.__dict__["forward"] = own


def _extras(block: Block, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Any]:
    """The values that the block returns beside its rows. T5's first block makes the position bias of all: it has to
    run."""
    assert block.extras is not None
    computed = None
    if any(extra.computed for extra in block.extras):
        with torch.no_grad():
            computed = forward(*args, **kwargs)
    for number, extra in enumerate(block.extras, start=1):
        if extra.computed:
            assert computed is not None
            yield computed[number]
        elif extra.argument is None:
            yield extra.constant
        else:
            yield args[extra.argument] if isinstance(extra.argument, int) else kwargs[extra.argument]


def _like(rows: Tensor, given: Tensor) -> Tensor:
    """The rows in the type of the hidden states they replace, lengthened with zeros if the model pads inside."""
    beyond = given.shape[1] - rows.shape[1]
    rows = rows.to(given.dtype)
    return nn.functional.pad(rows, (0, 0, 0, beyond)) if beyond else rows
