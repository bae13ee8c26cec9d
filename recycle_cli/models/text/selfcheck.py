"""Prove on the model at hand that head after trunk is the whole model, so that no architecture is silently wrong."""

from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from recycle_cli.errors import ModelError
from recycle_cli.models.dependence import behind, modules_called, tracked
from recycle_cli.models.eval_mode import evaluating
from recycle_cli.models.hub import first_line
from recycle_cli.models.preprocessor import Inputs
from recycle_cli.models.rounding import TOLERANCE, close, difference
from recycle_cli.models.text.alone import Alone, Seen, each_alone, last_rows, leak, seen_in_full
from recycle_cli.models.text.block_kinds import one_of_each_kind, only
from recycle_cli.models.text.engine import Engine
from recycle_cli.models.text.ownership import Used
from recycle_cli.models.text.passes import at_cut
from recycle_cli.models.text.tokens import TYPES, TextInputs, inputs_of, longest_text, mask_of, text_config

LENGTHS = (7, 4, 2)
"""Unequal, so that padding is at work, and another count than samples, so that the two axes cannot be mistaken."""

OTHER_LENGTHS = (3, 9, 6)
"""Lengths of the batch that passes in between: anything that it leaves in the model does not fit the first."""

CANNOT_RUN = (
    RuntimeError,
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    AttributeError,
    NotImplementedError,
    AssertionError,
)
"""The exceptions of a model that wants other inputs than token ids and their mask."""


def check_batch(model: Any, inputs: TextInputs, lengths: Sequence[int] = LENGTHS, seed: int = 0) -> Inputs:
    """A few random ordinary tokens in samples of unequal length, the second half of each of another type."""
    longest = max(lengths)
    special = {*inputs.tokenizer.all_special_ids, inputs.pad_id}
    ordinary = [number for number in range(min(inputs.token_count, 1000)) if number not in special]
    picks = torch.randint(len(ordinary), (len(lengths), longest), generator=torch.Generator().manual_seed(seed))
    mask = mask_of(torch.tensor(lengths), longest)
    batch = {
        "input_ids": torch.where(mask.bool(), torch.tensor(ordinary)[picks], inputs.pad_id),
        "attention_mask": mask,
    }
    if TYPES in inputs.names and (getattr(text_config(model), "type_vocab_size", 0) or 0) > 1:
        second = torch.arange(longest) >= torch.tensor(lengths)[:, None] / 2
        batch[TYPES] = (second & mask.bool()).long()
    for name, values in inputs.examples.items():
        picked = values[torch.randint(len(values), mask.shape, generator=torch.Generator().manual_seed(seed + 1))]
        batch[name] = picked * mask.reshape(*mask.shape, *(1 for _ in picked.shape[2:]))
    return batch


@dataclass(frozen=True)
class Checked:
    """An engine with the settings that its model turned out to need.

    used   by cut, the parameters and modules of the passes that proved it; empty if they were not tracked
    alone  the rows and outputs of each text of the batch by itself, by the blocks that were to compute
    """

    engine: Engine
    used: Mapping[int, Used]
    alone: Alone


def checked(engine: Engine, batch: Inputs, first: Seen, cuts: Sequence[int], some: Set[int]) -> Checked:
    """Prove the halves on a few tokens. `first`: what the model gave for them when it saw them first. `some`: the
    blocks, by number, by which each text is compared with itself alone; the shortest is by all.

    Raises ModelError if a cut changes the output.
    """
    with evaluating(engine.model), torch.no_grad():
        trunks, used = _trunks(engine, batch, cuts), dict[int, Used]()
        try:
            alone, leaks = _compared_alone(engine, batch, first, some)
        except CANNOT_RUN as error:
            raise ModelError(
                f"{type(engine.model).__name__} cannot be cut: a text of {min(LENGTHS)} to {max(LENGTHS)} tokens does "
                f"not pass alone ({first_line(error)})"
            ) from error
        if leaks:
            engine = _proved(engine.keeping_lengths_apart(), batch, cuts)
        else:
            engine, used = _proved_at_once(engine, batch, first, trunks)
        if cuts and _final_pad_matters(engine, batch, cuts[-1]):
            engine = replace(engine, inputs=replace(engine.inputs, refuses_final_pad=True))
    return Checked(engine, used, alone)


def _compared_alone(engine: Engine, batch: Inputs, first: Seen, some: Set[int]) -> tuple[Alone, str | None]:
    """The texts by themselves by some blocks, and what of any of them depends on those beside it.

    The last pass is of the shortest text, by all blocks: what it leaves in them does not fit the batch.
    """
    if len(some) == len(engine.blocks):
        alone = each_alone(engine, batch, longest_first=True)
        return alone, leak(engine, batch, alone, first)
    with only(engine.blocks, some):
        alone = each_alone(engine, batch, longest_first=True)
        leaks = leak(engine, batch, alone, seen_in_full(engine, batch))
    shortest = batch["attention_mask"].sum(1).argmin().reshape(1)
    text = {name: one[shortest] for name, one in batch.items()}
    seen = Seen(first.rows[shortest], first.outputs[shortest])
    return alone, leaks or leak(engine, text, each_alone(engine, text), seen)


def depends_on_task(engine: Engine, batch: Inputs, cuts: Sequence[int]) -> bool:
    """Whether the model with its task layer gives its blocks other inputs than the bare one (Longformer does)."""
    real = batch["attention_mask"].bool()
    with one_of_each_kind(engine.blocks, engine.kinds, cuts):
        through = engine.trunk(batch, cuts)
        try:
            bare = replace(engine, model=engine.model.base_model).trunk(batch, cuts)
        except CANNOT_RUN:
            return True
    return not all(close(rows[real], bare[cut][real], TOLERANCE) for cut, rows in through.items())


@dataclass(frozen=True)
class _Trunk:
    """The rows of the check batch at a cut, and the parameters and modules that they came by."""

    rows: Tensor
    behind: frozenset[int]
    called: tuple[nn.Module, ...]


def _trunks(engine: Engine, batch: Inputs, cuts: Sequence[int]) -> dict[int, _Trunk]:
    """What the trunk gives at each cut, by one pass."""
    calls: dict[int, int] = {}
    with modules_called(engine.model) as called, ExitStack() as stack:
        for cut in cuts:
            stack.enter_context(at_cut(engine.blocks, cut, lambda cut, rows: calls.update({cut: len(called)})))
        with tracked(engine.model):
            rows = engine.rows(inputs_of(batch, engine.model), cuts) if cuts else {}
    return {cut: _Trunk(one.detach().clone(), behind(one), tuple(called[: calls[cut]])) for cut, one in rows.items()}


def _proved_at_once(
    engine: Engine, batch: Inputs, first: Seen, trunks: Mapping[int, _Trunk]
) -> tuple[Engine, dict[int, Used]]:
    """As `_proved`, by passes that were made already, of which the last was of another batch; and what they used."""
    mask, used = batch["attention_mask"], dict[int, Used]()
    whole = _Whole(first.rows[:, : mask.shape[1]][mask.bool()], real_outputs(engine, first.outputs, mask))
    try:
        for cut, trunk in trunks.items():
            if used:
                engine.full(_other(engine))
            with tracked(engine.model):
                head = _check_head(engine, mask, trunk.rows, cut, whole)
            used[cut] = Used(trunk.behind, head, trunk.called)
    except ModelError:
        if engine.stem is None:
            raise
        return _proved(replace(engine, stem=None), batch, list(trunks)), {}
    return engine, used


def _proved(engine: Engine, batch: Inputs, cuts: Sequence[int]) -> Engine:
    """The engine, without its stem if that does more than give the first block its rows: the head after the rows of
    each cut is the whole, and another batch has passed before each."""
    mask = batch["attention_mask"]
    rows = {cut: one.clone() for cut, one in engine.trunk(batch, cuts).items()} if cuts else {}
    whole = _outputs(engine, mask, lambda: engine.full(batch))
    try:
        for cut in cuts:
            engine.full(_other(engine))
            _check_head(engine, mask, rows[cut], cut, whole)
    except ModelError:
        if engine.stem is None:
            raise
        return _proved(replace(engine, stem=None), batch, cuts)
    return engine


def _other(engine: Engine) -> Inputs:
    """A batch that passes in between. Without it, something that the whole has left behind in the model could make up
    for a lack in the rows."""
    longest = longest_text(engine.model) or max(OTHER_LENGTHS)
    return check_batch(engine.model, engine.inputs, [min(length, longest) for length in OTHER_LENGTHS], seed=1)


class _Whole(NamedTuple):
    """The last block's rows at real tokens, and the outputs that mean something."""

    rows: Tensor
    outputs: Tensor


def _check_head(engine: Engine, mask: Tensor, rows: Tensor, cut: int, whole: _Whole) -> frozenset[int]:
    """The parameters behind what the head gives from the rows at a cut, if it was tracked. Raises ModelError if that
    is not the whole model's."""
    refused = f"{type(engine.model).__name__} cannot be cut at {cut}: its blocks take more from the first {cut} than"
    remedy = "use cut 0" if cut else "name another cut"
    stored = rows.masked_fill(~mask.bool()[..., None], 0)
    try:
        halves = _outputs(engine, mask, partial(engine.head, stored, mask.sum(1), cut))
    except CANNOT_RUN as error:
        raise ModelError(f"{refused} their rows (the head alone fails: {first_line(error)}); {remedy}") from error
    for one, other in zip(whole, (found.detach() for found in halves), strict=True):
        if not close(one, other, TOLERANCE, whole.rows):
            off = difference(one, other, whole.rows)
            raise ModelError(f"{refused} their rows (head after trunk differs from the whole by {off:.1e}); {remedy}")
    return behind(halves.outputs)


def _outputs(engine: Engine, mask: Tensor, compute: Callable[[], Tensor]) -> _Whole:
    with last_rows(engine.blocks) as seen:
        outputs = real_outputs(engine, compute(), mask)
    if engine.apart:
        return _Whole(torch.cat([rows.flatten(0, 1) for rows in seen]), outputs)
    (rows,) = seen
    return _Whole(rows[:, : mask.shape[1]][mask.bool()], outputs)


def real_outputs(engine: Engine, outputs: Tensor, mask: Tensor) -> Tensor:
    """The outputs that mean something: those of samples, or those of real tokens."""
    return outputs[mask.bool()] if engine.per_row else outputs


def _final_pad_matters(engine: Engine, batch: Inputs, cut: int) -> bool:
    """Whether a text that ends in the padding token would be pooled elsewhere by the whole model than by the head.

    The ids reach a model's pooling, and its blocks through nothing but their arguments: one of each kind computes.
    """
    mask = batch["attention_mask"]
    lengths = mask.sum(1)
    ids = batch["input_ids"].clone()
    ids[torch.arange(len(ids)), lengths - 1] = engine.inputs.pad_id
    ending: Mapping[str, Tensor] = {**batch, "input_ids": ids}
    with one_of_each_kind(engine.blocks, engine.kinds, [cut]):
        rows = engine.trunk(ending, [cut])[cut].clone()
        whole, halves = engine.full(ending), engine.head(rows, lengths, cut)
    return not close(real_outputs(engine, whole, mask), real_outputs(engine, halves, mask), TOLERANCE, rows)
