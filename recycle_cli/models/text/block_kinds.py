"""Let only some of a model's blocks compute: those that are alike do alike."""

from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import Any

from recycle_cli.models.text.blocks import Block
from recycle_cli.models.text.passes import handing_on

Kinds = Sequence[str | None]


@contextmanager
def one_of_each_kind(blocks: Sequence[Block], kinds: Kinds, cuts: Sequence[int]) -> Iterator[None]:
    """Let one block of each kind compute, and at least one before, between and after the cuts."""
    with only(blocks, fewest(kinds, cuts)):
        yield


@contextmanager
def only(blocks: Sequence[Block], working: Set[int]) -> Iterator[None]:
    """Let these blocks compute, by number; the others hand on what they are given."""
    with ExitStack() as stack:
        for number, block in enumerate(blocks):
            if number not in working:
                stack.enter_context(handing_on(block))
        yield


def fewest(kinds: Kinds, cuts: Sequence[int]) -> Set[int]:
    """Numbers of blocks among which there is one of each kind, and one before, between and after the cuts."""
    working: set[int] = set()
    for start, end in pairwise(sorted({0, *cuts, len(kinds)})):
        done = {kinds[number] for number in working}
        new = (number for number in range(start, end) if kinds[number] is not None and kinds[number] not in done)
        working.add(next(new, start))
    return _with_each_kind(kinds, range(len(kinds)), working)


def latest(kinds: Kinds, cut: int) -> Set[int]:
    """Numbers of blocks among which there is one of each kind: of those after the cut, if they have the kind."""
    return _with_each_kind(kinds, [*range(cut, len(kinds)), *range(cut)], set())


def _with_each_kind(kinds: Kinds, order: Iterable[int], working: set[int]) -> Set[int]:
    """The blocks that are `working`, and for each kind that they lack the first in `order`."""
    for number in order:
        if kinds[number] is not None and kinds[number] not in {kinds[other] for other in working}:
            working.add(number)
    return working


def kinds_of(blocks: Sequence[Block]) -> Kinds:
    """The kind of each block: everything that it is made of, but its weights and the attributes that are every block's
    own number. None for one that only does less than another (ModernBERT's first block has `nn.Identity` for a norm).
    """
    facts = [_facts(block) for block in blocks]
    numbers = {key for key in facts[0] if all(one.get(key) == number for number, one in enumerate(facts))}
    plain = [{key: value for key, value in one.items() if key not in numbers} for one in facts]
    kinds = {repr(one): one for one in plain}
    less = {kind for kind, one in kinds.items() if any(_does_less(one, other) for other in kinds.values())}
    return [None if (kind := repr(one)) in less else kind for one in plain]


Facts = dict[tuple[str, str], Any]
"""Types, shapes and plain attributes of a block's modules, by path and name."""


def _does_less(one: Facts, other: Facts) -> bool:
    """Whether a block is another one but for some modules, in the place of which it hands on what it is given."""
    paths = [path for (path, name), value in one.items() if name == "" and value == "Identity"]
    bare = [path for path in paths if other.get((path, ""), "Identity") != "Identity"]
    return bool(bare) and _without(one, bare) == _without(other, bare)


def _without(facts: Facts, paths: Sequence[str]) -> Facts:
    """The facts but for those of the modules at some paths, and of the modules in them."""
    inside = tuple(f"{path}." for path in paths)
    return {key: value for key, value in facts.items() if not f"{key[0]}.".startswith(inside)}


def _facts(block: Block) -> Facts:
    facts: Facts = {}
    for path, module in block.module.named_modules():
        facts[path, ""] = type(module).__qualname__
        facts |= {(path, name): tuple(one.shape) for name, one in module.named_parameters(recurse=False)}
        facts |= {(path, name): value for name, value in vars(module).items() if _is_plain(value)}
    return facts


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)
