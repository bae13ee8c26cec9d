"""Find a model's blocks by watching one forward pass: which list of modules the rows travel through."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from recycle_cli.errors import ModelError

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class Extra:
    """A value that a block returns beside its rows: an argument handed on, a tensor for later blocks, or a constant."""

    argument: int | str | None = None
    computed: bool = False
    constant: Any = None


@dataclass(frozen=True)
class Block:
    """One block and the form of its output: rows of `width` values, alone (`extras` None) or with others."""

    module: nn.Module
    width: int
    extras: tuple[Extra, ...] | None


@dataclass
class _Call:
    """One observed call of a list's member."""

    index: int
    module: nn.Module
    arguments: Arguments
    output: Any = None


@dataclass
class _Watched:
    name: str
    modules: nn.ModuleList
    calls: list[_Call] = field(default_factory=list)


def find_blocks(model: nn.Module, inputs: Mapping[str, Any]) -> tuple[Block, ...]:
    """The blocks in the order in which one forward pass over `inputs` calls them.

    `inputs` must hold a batch whose sample and token counts differ. Raises ModelError if the rows do not travel
    through one list of modules, each called once, as one tensor of shape (samples, tokens, width).
    """
    lists = [_Watched(name, module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    handles = [handle for watched in lists for handle in _watch(watched)]
    try:
        with torch.no_grad():
            model(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    chain = _the_chain(model, lists, tuple(inputs["input_ids"].shape))
    return tuple(_block(call, chain[position + 1 :]) for position, call in enumerate(chain))


def rows_of(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """The hidden states among a block's arguments: the first positional one, or `hidden_states`."""
    return args[0] if args else kwargs.get("hidden_states")


def with_rows(args: tuple[Any, ...], kwargs: dict[str, Any], rows: Tensor) -> Arguments:
    """A block's arguments with other hidden states."""
    return ((rows, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": rows})


def first(output: Any) -> Any:
    """The rows of a block's output, bare or the first of a tuple."""
    return output[0] if isinstance(output, tuple | list) else output


def _watch(watched: _Watched) -> list[Any]:
    handles = []
    for index, member in enumerate(watched.modules):

        def before(module: nn.Module, args: Any, kwargs: Any, index: int = index) -> None:
            watched.calls.append(_Call(index, module, (args, kwargs)))

        def after(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            next(call for call in reversed(watched.calls) if call.module is module).output = output

        handles.append(member.register_forward_pre_hook(before, with_kwargs=True))
        handles.append(member.register_forward_hook(after, with_kwargs=True))
    return handles


def _the_chain(model: nn.Module, lists: Sequence[_Watched], tokens: tuple[int, ...]) -> list[_Call]:
    name = type(model).__name__
    rows = [
        watched for watched in lists if watched.calls and all(_carries_rows(call, tokens) for call in watched.calls)
    ]
    outer = [one for one in rows if not any(one.name.startswith(f"{other.name}.") for other in rows)]
    if not outer:
        raise ModelError(f"{name} cannot be cut: no list of blocks hands on rows of shape (samples, tokens, width)")
    if len(outer) > 1:
        names = ", ".join(one.name for one in outer)
        raise ModelError(f"{name} cannot be cut: its rows pass through several lists of modules ({names})")
    calls = outer[0].calls
    if len({call.index for call in calls}) < len(calls):
        raise ModelError(f"{name} cannot be cut: its blocks share weights ({outer[0].name} is called again and again)")
    return calls


def _carries_rows(call: _Call, tokens: tuple[int, ...]) -> bool:
    rows, output = rows_of(*call.arguments), first(call.output)
    return (
        isinstance(rows, Tensor)
        and isinstance(output, Tensor)
        and rows.is_floating_point()
        and rows.ndim == 3
        and rows.shape[0] == tokens[0]
        and rows.shape[1] >= tokens[1]
        and rows.shape == output.shape
    )


def _block(call: _Call, later: Sequence[_Call]) -> Block:
    width = int(first(call.output).shape[-1])
    if not isinstance(call.output, tuple | list):
        return Block(call.module, width, None)
    return Block(call.module, width, tuple(_extra(value, call.arguments, later) for value in call.output[1:]))


def _extra(value: Any, arguments: Arguments, later: Sequence[_Call]) -> Extra:
    if not isinstance(value, Tensor):
        return Extra(constant=value)
    for place, argument in placed(arguments):
        if argument is value:
            return Extra(argument=place)
    taken = any(argument is value for call in later for _, argument in placed(call.arguments))
    return Extra(computed=taken)


def placed(arguments: Arguments) -> list[tuple[int | str, Any]]:
    """A call's arguments with their places, numbers or names."""
    args, kwargs = arguments
    return [*enumerate(args), *kwargs.items()]
