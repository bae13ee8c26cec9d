"""Find a model's blocks by watching one forward pass: which list of modules the rows travel through."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from recycle_cli.errors import ModelError
from recycle_cli.models.forwards import watching

Arguments = tuple[tuple[Any, ...], dict[str, Any]]

Place = int | str
"""Where a value lies among arguments, or in a tuple or a dictionary that a module returns."""

ORDERS: tuple[tuple[int, int] | None, ...] = (None, (0, 1), (1, 2))
"""The axes that a model may have exchanged in rows of (samples, tokens, width): XLNet's are tokens, samples, width,
SqueezeBERT's samples, width, tokens."""


@dataclass(frozen=True)
class Extra:
    """A value that a module returns beside its rows: an argument, a tensor for later blocks, or a constant."""

    argument: Place | None = None
    computed: bool = False
    constant: Any = None


@dataclass(frozen=True)
class Part:
    """A module that takes rows and returns rows of the same shape.

    kind     the type of its output; None if that is the rows alone
    place    where the rows lie in the output
    extras   the other values of the output, by place
    """

    module: nn.Module
    kind: Any = None
    place: Place = 0
    extras: Mapping[Place, Extra] = field(default_factory=dict)

    def output(self, rows: Tensor, others: Mapping[Place, Any]) -> Any:
        """Rows and the other values in the form in which the module returns them."""
        if self.kind is None:
            return rows
        values = {self.place: rows, **others}
        if issubclass(self.kind, Mapping):
            return self.kind(**{str(name): values[name] for name in [*others, self.place]})
        items = [values[number] for number in range(len(values))]
        return self.kind(*items) if hasattr(self.kind, "_fields") else self.kind(items)


@dataclass(frozen=True)
class Block:
    """One block, made of one module, or of several that the model calls one after the other.

    module  the module, or all of them as a list
    width   numbers of a row
    parts   the modules in the order of their calls
    swap    the axes that the model has exchanged in the rows of its modules
    """

    module: nn.Module
    width: int
    parts: tuple[Part, ...]
    swap: tuple[int, int] | None = None

    def turned(self, rows: Tensor) -> Tensor:
        """The model's rows as (samples, tokens, width), and such rows as the model's."""
        return rows if self.swap is None else rows.transpose(*self.swap)

    @property
    def closed(self) -> bool:
        """Whether all that comes before goes through the first module's rows; between several, the rows also pass
        beside them."""
        return len(self.parts) == 1


@dataclass
class _Call:
    """One observed call of a list's member; `turn` counts the calls of all members."""

    index: int
    module: nn.Module
    arguments: Arguments
    turn: int
    output: Any = None


@dataclass
class _Watched:
    name: str
    modules: nn.ModuleList
    calls: list[_Call] = field(default_factory=list)


@dataclass(frozen=True)
class Chain:
    """The blocks in the order of their calls, and the rows (samples, tokens, width) that the last one returned."""

    blocks: tuple[Block, ...]
    rows: Tensor


def find_blocks(model: nn.Module, inputs: Mapping[str, Any], compute: Callable[[], object] | None = None) -> Chain:
    """The blocks that one forward pass over `inputs` calls.

    `compute` runs the model on `inputs`, if more is wanted of that pass. They must hold a batch whose sample and token
    counts differ. Raises ModelError if the rows do not travel through one list of modules, or several side by side,
    each called once, as one tensor of samples, tokens and width.
    """
    lists = [_Watched(name, module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    turns: list[_Call] = []
    with ExitStack() as stack, torch.no_grad():
        for watched in lists:
            _watch(watched, turns, stack)
        model(**inputs) if compute is None else compute()
    chain, swap = _the_chain(model, lists, tuple(inputs["input_ids"].shape))
    later = [call for calls in chain for call in calls]
    blocks = []
    for calls in chain:
        later = later[len(calls) :]
        blocks.append(_block(calls, later, swap))
    return Chain(tuple(blocks), blocks[-1].turned(first(chain[-1][-1].output)))


def rows_of(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """The hidden states among a block's arguments: the first positional one, or `hidden_states`."""
    return args[0] if args else kwargs.get("hidden_states")


def with_rows(args: tuple[Any, ...], kwargs: dict[str, Any], rows: Tensor) -> Arguments:
    """A block's arguments with other hidden states."""
    return ((rows, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": rows})


def first(output: Any) -> Any:
    """The rows of a module's output: bare, the first of a tuple, or the first tensor of their form in a dictionary."""
    return dict(_values(output)).get(_place(output))


def placed(arguments: Arguments) -> list[tuple[Place, Any]]:
    """A call's arguments with their places, numbers or names."""
    args, kwargs = arguments
    return [*enumerate(args), *kwargs.items()]


def _values(output: Any) -> list[tuple[Place, Any]]:
    """What a module returns, by place."""
    if isinstance(output, Mapping):
        return list(output.items())
    return list(enumerate(output)) if isinstance(output, tuple | list) else [(0, output)]


def _place(output: Any) -> Place:
    fitting = (name for name, value in _values(output) if isinstance(value, Tensor) and value.ndim == 3)
    return next(fitting, "") if isinstance(output, Mapping) else 0


def _watch(watched: _Watched, turns: list[_Call], stack: ExitStack) -> None:
    for index, member in enumerate(watched.modules):

        def before(args: Any, kwargs: Any, index: int = index, member: nn.Module = member) -> None:
            call = _Call(index, member, (args, kwargs), len(turns))
            watched.calls.append(call)
            turns.append(call)

        def after(args: Any, kwargs: Any, output: Any, member: nn.Module = member) -> None:
            next(call for call in reversed(watched.calls) if call.module is member).output = output

        stack.enter_context(watching(member, before, after))


def _the_chain(
    model: nn.Module, lists: Sequence[_Watched], tokens: tuple[int, ...]
) -> tuple[list[list[_Call]], tuple[int, int] | None]:
    """The calls of each block, and the axes that are exchanged in their rows."""
    name = type(model).__name__
    called = [one for one in lists if one.calls]
    for swap in ORDERS:
        if outer := _outer([one for one in called if all(_carries(call, tokens, swap) for call in one.calls)]):
            break
    else:
        raise ModelError(f"{name} cannot be cut: no list of blocks hands on rows of shape (samples, tokens, width)")
    for one in outer:
        if len({call.index for call in one.calls}) < len(one.calls):
            raise ModelError(f"{name} cannot be cut: its blocks share weights ({one.name} is called again and again)")
    blocks = _side_by_side(outer)
    if blocks is None:
        names = ", ".join(one.name for one in outer)
        raise ModelError(
            f"{name} cannot be cut: its rows pass through several lists of modules ({names}), and no one of "
            "them holds its blocks; take a model with one list of blocks"
        )
    return blocks, swap


def _outer(lists: Sequence[_Watched]) -> list[_Watched]:
    return [one for one in lists if not any(one.name.startswith(f"{other.name}.") for other in lists)]


def _side_by_side(lists: Sequence[_Watched]) -> list[list[_Call]] | None:
    """The calls of each block: those of one number in all lists, if they come before those of the next number."""
    numbers = {tuple(call.index for call in one.calls) for one in lists}
    if len(lists) > 1 and (len(numbers) > 1 or len(lists[0].calls) < 2):
        return None
    blocks = [sorted(calls, key=lambda call: call.turn) for calls in zip(*(one.calls for one in lists), strict=True)]
    turns = [call.turn for calls in blocks for call in calls]
    return blocks if len(lists) == 1 or turns == sorted(turns) else None


def _carries(call: _Call, tokens: tuple[int, ...], swap: tuple[int, int] | None) -> bool:
    rows, output = rows_of(*call.arguments), first(call.output)
    if not (isinstance(rows, Tensor) and isinstance(output, Tensor)):
        return False
    if not rows.is_floating_point() or rows.ndim != 3 or rows.shape != output.shape:
        return False
    if swap is not None:
        return rows.transpose(*swap).shape[:2] == tokens
    # Longformer lengthens texts to its window inside. An axis of exactly as many as there are tokens is theirs.
    longer = rows.shape[1] > tokens[1] and rows.shape[2] != tokens[1]
    return rows.shape[0] == tokens[0] and (rows.shape[1] == tokens[1] or longer)


def _block(calls: Sequence[_Call], later: Sequence[_Call], swap: tuple[int, int] | None) -> Block:
    rows = first(calls[-1].output)
    width = int((rows if swap is None else rows.transpose(*swap)).shape[-1])
    parts = tuple(_part(call, [*calls[number + 1 :], *later]) for number, call in enumerate(calls))
    module = parts[0].module if len(parts) == 1 else nn.ModuleList(part.module for part in parts)
    return Block(module, width, parts, swap)


def _part(call: _Call, later: Sequence[_Call]) -> Part:
    if isinstance(call.output, Tensor):
        return Part(call.module)
    place = _place(call.output)
    others = {where: _extra(value, call.arguments, later) for where, value in _values(call.output) if where != place}
    return Part(call.module, type(call.output), place, others)


def _extra(value: Any, arguments: Arguments, later: Sequence[_Call]) -> Extra:
    if not isinstance(value, Tensor):
        return Extra(constant=value)
    for place, argument in placed(arguments):
        if argument is value:
            return Extra(argument=place)
    taken = any(argument is value for call in later for _, argument in placed(call.arguments))
    return Extra(computed=taken)
