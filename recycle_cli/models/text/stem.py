"""The part of a model before its first block, embeddings and their norm, which a head need not compute again."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from recycle_cli.models.forwards import computing, watching
from recycle_cli.models.text.blocks import Block, placed, rows_of


@dataclass(frozen=True)
class Stem:
    """A module whose output is the first block's input; its argument at `place` has its tokens."""

    module: nn.Module
    place: int | str

    def dtype(self, like: Tensor) -> torch.dtype:
        """Type of the output: that of its weights, which may have changed since, or of the argument if it has none."""
        weight = next(self.module.parameters(), None)
        return like.dtype if weight is None else weight.dtype


@dataclass
class _Seen:
    """A call of a module: its arguments, its output, and how often the output had been written to."""

    arguments: list[tuple[int | str, Any]]
    output: Any
    version: int
    early: bool


def find_stem(
    model: nn.Module, blocks: tuple[Block, ...], inputs: Mapping[str, Any], compute: Callable[[], object] | None = None
) -> Stem | None:
    """The outermost module that gives the first block its rows; None if there is no such module.

    `compute` runs the model on `inputs`, if more is wanted of that pass. They must hold a batch whose sample and token
    counts differ. Whether the module also leaves something behind for later blocks does not show here: the self-check
    finds out.
    """
    inside = {id(module) for block in blocks for module in block.module.modules()}
    seen: dict[nn.Module, list[_Seen]] = {}
    given: list[Any] = []

    def after(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        version = output._version if isinstance(output, Tensor) else 0
        seen.setdefault(module, []).append(_Seen(placed((args, kwargs)), output, version, not given))

    def before(args: Any, kwargs: Any) -> None:
        given.append(rows_of(args, kwargs))

    with ExitStack() as hooks, torch.no_grad():
        for module in model.modules():
            if id(module) not in inside:
                hooks.callback(module.register_forward_hook(after, with_kwargs=True).remove)
        hooks.enter_context(watching(blocks[0].parts[0].module, before))
        model(**inputs) if compute is None else compute()
    rows = given[0]
    for module in model.modules():
        calls = seen.get(module, [])
        if len(calls) == 1 and calls[0].early and calls[0].output is rows and calls[0].version == rows._version:
            return _stem(module, calls[0], rows, inputs["input_ids"])
    return None


def _stem(module: nn.Module, call: _Seen, rows: Tensor, ids: Tensor) -> Stem | None:
    """The stem as it was called: its tokens are those of the ids, or if it is not given ids, of embeddings."""
    fitting = [
        (place, one)
        for place, one in call.arguments
        if isinstance(one, Tensor) and one.shape[:2] == rows.shape[:2] and (_are(one, ids) or _are_rows(one))
    ]
    if not fitting:
        return None
    place, one = min(fitting, key=lambda argument: _are_rows(argument[1]))
    stem = Stem(module, place)
    return stem if stem.dtype(one) == rows.dtype else None


def _are(one: Tensor, ids: Tensor) -> bool:
    """Whether these are the ids, which the model may have reshaped on the way or lengthened (Longformer)."""
    return one.dim() == 2 and one.dtype == ids.dtype and torch.equal(one[:, : ids.shape[1]], ids)


def _are_rows(one: Tensor) -> bool:
    return one.dim() == 3 and one.is_floating_point()


@contextmanager
def skipped(stem: Stem | None, rows: Tensor, *, replaced: bool = False) -> Iterator[None]:
    """Let the stem return zeros that take no memory, in the shape of its output; `replaced`: the rows, which are those
    of its output, lengthened with zeros if the model pads its texts inside.

    If it is called without the argument that tells the shape, it computes as always.
    """
    if stem is None:
        yield
        return

    def made(forward: Any) -> Any:
        def zeros(*args: Any, **kwargs: Any) -> Any:
            like = dict(placed((args, kwargs))).get(stem.place)
            if not isinstance(like, Tensor):
                return forward(*args, **kwargs)
            if replaced:
                return nn.functional.pad(rows.to(stem.dtype(like)), (0, 0, 0, like.shape[1] - rows.shape[1]))
            return rows.new_zeros((), dtype=stem.dtype(like)).expand(*like.shape[:2], rows.shape[-1])

        return zeros

    with computing(stem.module, made):
        yield
