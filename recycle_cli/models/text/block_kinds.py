"""Let only some of a model's blocks compute: those that are alike do alike."""

from collections.abc import Iterator, Sequence, Set
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import Any

from recycle_cli.models.text.blocks import Block
from recycle_cli.models.text.passes import handing_on


@contextmanager
def one_of_each_kind(blocks: Sequence[Block], cuts: Sequence[int]) -> Iterator[None]:
    """Let one block of each kind compute, and at least one before, between and after the cuts."""
    with only(blocks, fewest(blocks, cuts)):
        yield


@contextmanager
def only(blocks: Sequence[Block], working: Set[int]) -> Iterator[None]:
    """Let these blocks compute, by number; the others hand on what they are given."""
    with ExitStack() as stack:
        for number, block in enumerate(blocks):
            if number not in working:
                stack.enter_context(handing_on(block))
        yield


def fewest(blocks: Sequence[Block], cuts: Sequence[int]) -> Set[int]:
    """Numbers of blocks among which there is one of each kind, and one before, between and after the cuts."""
    kinds = _kinds(blocks)
    working: set[int] = set()
    for start, end in pairwise(sorted({0, *cuts, len(blocks)})):
        done = {kinds[number] for number in working}
        working.add(next((number for number in range(start, end) if kinds[number] not in done), start))
    for number, kind in enumerate(kinds):
        if kind not in {kinds[other] for other in working}:
            working.add(number)
    return working


def _kinds(blocks: Sequence[Block]) -> list[str]:
    """Everything that each block is made of, but its weights and the attributes that are every block's own number."""
    facts = [_facts(block) for block in blocks]
    numbers = {key for key in facts[0] if all(one.get(key) == number for number, one in enumerate(facts))}
    return [repr({key: value for key, value in one.items() if key not in numbers}) for one in facts]


def _facts(block: Block) -> dict[tuple[str, str], Any]:
    """Types, shapes and plain attributes of a block's modules, by path and name."""
    facts: dict[tuple[str, str], Any] = {}
    for path, module in block.module.named_modules():
        facts[path, ""] = type(module).__qualname__
        facts |= {(path, name): tuple(one.shape) for name, one in module.named_parameters(recurse=False)}
        facts |= {(path, name): value for name, value in vars(module).items() if _is_plain(value)}
    return facts


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)
