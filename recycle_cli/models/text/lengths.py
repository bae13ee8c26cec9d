"""Prove a text model at every length that the user may feed: what it does may change at one (windows, chunks, rope)."""

from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from recycle_cli.errors import ModelError
from recycle_cli.models.eval_mode import evaluating
from recycle_cli.models.hub import first_line
from recycle_cli.models.preprocessor import Inputs
from recycle_cli.models.rounding import TOLERANCE, close
from recycle_cli.models.text.alone import Alone, Seen, each_alone, last_rows, leak, seen_in_full
from recycle_cli.models.text.block_kinds import fewest, latest, only
from recycle_cli.models.text.engine import Engine
from recycle_cli.models.text.passes import at_cut
from recycle_cli.models.text.selfcheck import CANNOT_RUN, LENGTHS, Checked, check_batch, checked

WORK = 4e9
"""FLOPs of a pass that costs nothing to speak of: up to there all blocks compute, and of more texts than one a length.
What a window leaves out need not show in every text or block."""

COPIES = 16
"""Texts of each length at most."""


def proved(engine: Engine, batch: Inputs, first: Seen, cuts: Sequence[int]) -> Checked:
    """The engine with the settings that the model turns out to need, proved on a few tokens and at every length.

    `first`: what the model gave for the batch when it saw it first. Raises ModelError if a cut changes the output, or
    if what is made of a text depends on the texts before it.
    """
    ends = sorted({cuts[0], cuts[-1]}) if cuts else []
    tried = list(_tried(engine))
    working = [_working(engine, ends, lengths) for lengths in tried]
    # A block remembers no text that has not gone through it.
    gone_through = set[int]().union(*working)
    found = checked(engine, batch, first, cuts, gone_through)
    engine = found.engine
    with evaluating(engine.model), torch.no_grad():
        for lengths, some in zip(tried, working, strict=True):
            engine = _proved_at(engine, lengths, ends, some)
        with only(engine.blocks, gone_through):
            again = each_alone(engine, batch)
        _check_memory(engine, found.alone, again, max(LENGTHS), engine.inputs.max_length)
    return replace(found, engine=engine)


def _working(engine: Engine, cuts: Sequence[int], lengths: Sequence[int]) -> Set[int]:
    """The blocks that compute for texts of these lengths: all if that costs nothing to speak of, else some of each
    kind; at a threshold one before each cut, too, since what its blocks hand on beside their rows may begin there."""
    if _work(engine, lengths) <= WORK:
        return set(range(len(engine.blocks)))
    if lengths[-1] < engine.inputs.max_length:
        return fewest(engine.kinds, cuts)
    return latest(engine.kinds, cuts[-1] if cuts else 0)


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
            # Far apart: whatever changes between them shows.
            lengths = [longest // 4 + 1, longest]
        yield sorted(lengths * int(min(COPIES, max(1, WORK / _work(engine, lengths)))))


def _work(engine: Engine, lengths: Sequence[int]) -> float:
    """FLOPs of the blocks' matrix products for texts of these lengths, padded; about."""
    weights = sum(one.numel() for block in engine.blocks for one in block.module.parameters())
    return 2.0 * weights * len(lengths) * max(lengths)


def _proved_at(engine: Engine, lengths: Sequence[int], cuts: Sequence[int], some: Set[int]) -> Engine:
    """The engine, with its lengths apart if a text's rows or outputs depend on the texts beside it.

    `some`: the blocks that compute, by number, while the others hand on what they are given.
    """
    batch = check_batch(engine.model, engine.inputs, lengths, seed=2)
    shorter, longest = (_texts(batch, [(one == lengths[-1]) is last for one in lengths]) for last in (False, True))
    with only(engine.blocks, some):
        try:
            alone, together = each_alone(engine, shorter), seen_in_full(engine, batch)
            halves = _by_halves(engine, longest, cuts)
            if engine.apart or halves is None or leak(engine, batch, [*alone, *halves], together, TOLERANCE):
                with _rows_at(engine, cuts) as rows:
                    alone += each_alone(engine, longest)
                what = leak(engine, batch, alone, together, TOLERANCE)
                if what and not engine.apart:
                    engine = replace(engine.keeping_lengths_apart(), by_length=what == "rows")
                _check_halves(engine, alone[-1], {cut: one[-1:] for cut, one in rows.items()})
        except CANNOT_RUN as error:
            raise ModelError(
                f"{type(engine.model).__name__} does not take texts of {lengths[0]} to {lengths[-1]} tokens "
                f"({first_line(error)}); give a --max-length below {lengths[0]}, or another model"
            ) from error
        row = len(shorter["input_ids"]) - 1
        again = each_alone(engine, _texts(batch, [number == row for number in range(len(lengths))]))
        _check_memory(engine, alone[row : row + 1], again, lengths[row], lengths[-1])
    return engine


def _texts(batch: Inputs, chosen: Sequence[bool]) -> Inputs:
    return {name: one[torch.tensor(chosen)] for name, one in batch.items()}


def _by_halves(engine: Engine, batch: Inputs, cuts: Sequence[int]) -> Alone | None:
    """Texts of one length by themselves, from the trunk and the head, if all cuts give the same. None if they do not,
    if the model cannot run so, or if there is no cut: then texts are compared with the whole model."""
    found: list[Alone] = []
    try:
        rows = engine.trunk(batch, cuts) if cuts else {}
        for cut in cuts:
            found.append(_head_alone(engine, rows[cut].clone(), batch["attention_mask"].sum(1), cut))
    except CANNOT_RUN:
        return None
    same = all(_same(*pair) for later in found[1:] for pair in zip(found[0], later, strict=True))
    return found[0] if found and same else None


def _head_alone(engine: Engine, rows: Tensor, lengths: Tensor, cut: int) -> Alone:
    with last_rows(engine.blocks) as seen:
        outputs = engine.head(rows, lengths, cut)
    return list(zip(seen[0][:, : rows.shape[1]], outputs, strict=True))


def _check_memory(engine: Engine, before: Alone, after: Alone, length: int, longer: int) -> None:
    """Raise ModelError if a text gives other rows or outputs now that a longer one has been through the model."""
    if not all(_same(one, other) for one, other in zip(before, after, strict=True)):
        raise ModelError(
            f"{type(engine.model).__name__} cannot be cut: a text of {longer} tokens changes what it makes of one "
            f"of {length} afterwards; give a smaller --max-length"
        )


def _same(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> bool:
    """Whether a text has the same rows and outputs twice."""
    return close(one[0], other[0], TOLERANCE) and close(one[1], other[1], TOLERANCE, one[0])


@contextmanager
def _rows_at(engine: Engine, cuts: Sequence[int]) -> Iterator[dict[int, Tensor]]:
    """Collect the rows at the cuts; those of a later pass replace those of an earlier one."""
    rows: dict[int, Tensor] = {}
    with ExitStack() as stack:
        for cut in cuts:
            stack.enter_context(at_cut(engine.blocks, cut, rows.__setitem__))
        yield rows


def _check_halves(engine: Engine, whole: tuple[Tensor, Tensor], rows: Mapping[int, Tensor]) -> None:
    """Raise ModelError if the head's outputs from a text's rows at a cut are not those of the `whole` model, which
    come with the rows of its last block."""
    length = len(whole[0])
    for cut, one in rows.items():
        halves = engine.head(one[:, :length].clone(), torch.tensor([length]), cut)
        if not close(whole[1], halves[0], TOLERANCE, whole[0]):
            other = "use cut 0" if cut else "name another cut"
            raise ModelError(
                f"{type(engine.model).__name__} cannot be cut at {cut}: head after trunk differs from the whole for a "
                f"text of {length} tokens; {other}, or give a smaller --max-length"
            )
