"""Prove a text model at every length that the user may feed: what it does may change at one (windows, chunks, rope)."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from recycle_cli.errors import ModelError
from recycle_cli.models.eval_mode import evaluating
from recycle_cli.models.hub import first_line
from recycle_cli.models.preprocessor import Inputs
from recycle_cli.models.text.blocks import Block
from recycle_cli.models.text.engine import Engine
from recycle_cli.models.text.passes import at_cut, handing_on
from recycle_cli.models.text.selfcheck import (
    CANNOT_RUN,
    LENGTHS,
    TOLERANCE,
    Alone,
    check_batch,
    checked,
    close,
    each_alone,
    leak,
)

WORK = 4e9
"""FLOPs of a pass that costs nothing to speak of: up to there all blocks compute, and of more texts than one a length.
What a window leaves out need not show in every text or block."""

COPIES = 16
"""Texts of each length at most."""


def proved(engine: Engine, batch: Inputs, cuts: Sequence[int]) -> Engine:
    """The engine with the settings that the model turns out to need, proved on a few tokens and at every length.

    Raises ModelError if a cut changes the output, or if what is made of a text depends on the texts before it.
    """
    engine, first = checked(engine, batch, cuts)
    with evaluating(engine.model), torch.no_grad():
        for lengths in _tried(engine):
            engine = _proved_at(engine, lengths, sorted({cuts[0], cuts[-1]}) if cuts else [])
        _check_memory(engine, first, each_alone(engine, batch), max(LENGTHS), engine.inputs.max_length)
    return engine


def thresholds(config: Mapping[str, Any], longest: int) -> list[int]:
    """Lengths at which a model of this config may change what it does: each whole number in it, however deep, from the
    longest text that the first check tries up to `longest`, and that one."""
    return sorted({number for number in _numbers(config) if max(LENGTHS) <= number < longest} | {longest})


def _numbers(value: Any) -> Iterator[int]:
    if isinstance(value, Mapping | list | tuple | set):
        for one in value.values() if isinstance(value, Mapping) else value:
            yield from _numbers(one)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield value
    elif isinstance(value, float) and value.is_integer():
        yield int(value)


def _tried(engine: Engine) -> Iterator[list[int]]:
    """The lengths of the texts of each batch: on both sides of a threshold, and well beyond it."""
    longest = engine.inputs.max_length
    for number in thresholds(engine.model.config.to_dict(), longest):
        if number < longest:
            lengths = sorted({min(one, longest) for one in (number - 1, number + 1, number + number // 4 + 2)})
        else:
            lengths = sorted({(longest + 1) // 2, longest})
        yield sorted(lengths * int(min(COPIES, max(1, WORK / _work(engine, lengths)))))


def _work(engine: Engine, lengths: Sequence[int]) -> float:
    """FLOPs of the blocks' matrix products for texts of these lengths, padded; about."""
    weights = sum(one.numel() for block in engine.blocks for one in block.module.parameters())
    return 2.0 * weights * len(lengths) * max(lengths)


def _proved_at(engine: Engine, lengths: Sequence[int], cuts: Sequence[int]) -> Engine:
    """The engine, with its lengths apart if a text's rows or outputs depend on the texts beside it.

    If all blocks would take long, one of each kind computes, and the others hand on what they are given.
    """
    batch = check_batch(engine.model, engine.inputs, lengths, seed=2)
    with nullcontext() if _work(engine, lengths) <= WORK else _one_of_each_kind(engine.blocks, cuts):
        try:
            with _rows_at(engine, cuts) as rows:
                alone = each_alone(engine, batch)
            what = leak(engine, batch, alone, TOLERANCE)
        except CANNOT_RUN as error:
            raise ModelError(
                f"{type(engine.model).__name__} does not take texts of {lengths[0]} to {lengths[-1]} tokens "
                f"({first_line(error)}); give a --max-length below {lengths[0]}, or another model"
            ) from error
        row = max(row for row, length in enumerate(lengths) if length < lengths[-1])
        again = each_alone(engine, {name: one[row : row + 1] for name, one in batch.items()})
        _check_memory(engine, alone[row : row + 1], again, lengths[row], lengths[-1])
        if what and not engine.apart:
            engine = replace(engine.keeping_lengths_apart(), by_length=what == "rows")
        # The longest text was the last to be computed alone.
        _check_halves(engine, alone[-1], {cut: one[-1:] for cut, one in rows.items()})
    return engine


def _check_memory(engine: Engine, before: Alone, after: Alone, length: int, longer: int) -> None:
    """Raise ModelError if a text gives other rows or outputs now that a longer one has been through the model."""
    for (rows, outputs), (rows_again, outputs_again) in zip(before, after, strict=True):
        if not (close(rows, rows_again, TOLERANCE) and close(outputs, outputs_again, TOLERANCE, rows)):
            raise ModelError(
                f"{type(engine.model).__name__} cannot be cut: a text of {longer} tokens changes what it makes of one "
                f"of {length} afterwards; give a smaller --max-length"
            )


@contextmanager
def _rows_at(engine: Engine, cuts: Sequence[int]) -> Iterator[dict[int, Tensor]]:
    """Collect the rows at the cuts of the pass that was the last one."""
    rows: dict[int, Tensor] = {}
    with ExitStack() as stack:
        for cut in cuts:
            stack.enter_context(at_cut(engine.blocks, cut, rows.__setitem__))
        yield rows


def _check_halves(engine: Engine, whole: tuple[Tensor, Tensor], rows: Mapping[int, Tensor]) -> None:
    """Raise ModelError if the head, from the rows at a cut of one text, is not the `whole` by its rows and outputs."""
    length = len(whole[0])
    for cut, one in rows.items():
        halves = engine.head(one[:, :length].clone(), torch.tensor([length]), cut)
        if not close(whole[1], halves[0], TOLERANCE, whole[0]):
            raise ModelError(
                f"{type(engine.model).__name__} cannot be cut at {cut}: head after trunk differs from the whole for a "
                f"text of {length} tokens; use cut 0, or a smaller --max-length"
            )


@contextmanager
def _one_of_each_kind(blocks: Sequence[Block], cuts: Sequence[int]) -> Iterator[None]:
    """Let one block of each kind compute, and at least one before, between and after the cuts."""
    kinds = _kinds(blocks)
    working: set[int] = set()
    for start, end in pairwise(sorted({0, *cuts, len(blocks)})):
        done = {kinds[number] for number in working}
        working.add(next((number for number in range(start, end) if kinds[number] not in done), start))
    for number, kind in enumerate(kinds):
        if kind not in {kinds[other] for other in working}:
            working.add(number)
    with ExitStack() as stack:
        for number, block in enumerate(blocks):
            if number not in working:
                stack.enter_context(handing_on(block))
        yield


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
