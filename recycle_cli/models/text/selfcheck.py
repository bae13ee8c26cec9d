"""Prove on the model at hand that head after trunk is the whole model, so that no architecture is silently wrong."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from recycle_cli.errors import ModelError
from recycle_cli.models.eval_mode import evaluating
from recycle_cli.models.hub import first_line
from recycle_cli.models.preprocessor import Inputs
from recycle_cli.models.rounding import TOLERANCE, close, difference
from recycle_cli.models.text.alone import Alone, Seen, each_alone, last_rows, leak
from recycle_cli.models.text.block_kinds import one_of_each_kind
from recycle_cli.models.text.engine import Engine
from recycle_cli.models.text.tokens import TYPES, TextInputs, longest_text, mask_of, text_config

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

    rows   by cut, the check batch's rows
    alone  the texts of the batch by themselves
    """

    engine: Engine
    rows: Mapping[int, Tensor]
    alone: Alone


def checked(engine: Engine, batch: Inputs, first: Seen, cuts: Sequence[int]) -> Checked:
    """Prove the halves on a few tokens. `first`: what the model gave for them when it saw them first.

    Raises ModelError if a cut changes the output.
    """
    with evaluating(engine.model), torch.no_grad():
        rows: Mapping[int, Tensor] = _trunk_rows(engine, batch, cuts)
        try:
            # What the last and shortest leaves in the model does not fit the batch.
            alone = each_alone(engine, batch, longest_first=True)
        except CANNOT_RUN as error:
            raise ModelError(
                f"{type(engine.model).__name__} cannot be cut: a text of {min(LENGTHS)} to {max(LENGTHS)} tokens does "
                f"not pass alone ({first_line(error)})"
            ) from error
        if leak(engine, batch, alone, first):
            engine = engine.keeping_lengths_apart()
            engine, rows = _proved(engine, batch, cuts)
        else:
            engine, rows = _proved_at_once(engine, batch, first, rows)
        if cuts and _final_pad_matters(engine, batch, cuts[-1]):
            engine = replace(engine, inputs=replace(engine.inputs, refuses_final_pad=True))
    return Checked(engine, rows, alone)


def depends_on_task(engine: Engine, batch: Inputs, through: Mapping[int, Tensor]) -> bool:
    """Whether the model with its task layer gives its blocks other inputs than the bare one (Longformer does).

    `through`: its rows by cut.
    """
    try:
        bare = replace(engine, model=engine.model.base_model).trunk(batch, list(through))
    except CANNOT_RUN:
        return True
    real = batch["attention_mask"].bool()
    return not all(close(rows[real], bare[cut][real], TOLERANCE) for cut, rows in through.items())


def _proved_at_once(
    engine: Engine, batch: Inputs, first: Seen, rows: Mapping[int, Tensor]
) -> tuple[Engine, Mapping[int, Tensor]]:
    """As `_proved`, by what other passes have computed already; the last was of another batch."""
    mask = batch["attention_mask"]
    whole = _Whole(first.rows[:, : mask.shape[1]][mask.bool()], real_outputs(engine, first.outputs, mask))
    return _compared(engine, batch, rows, whole, after_another=True)


def _proved(engine: Engine, batch: Inputs, cuts: Sequence[int]) -> tuple[Engine, Mapping[int, Tensor]]:
    """The engine, without its stem if that does more than give the first block its rows; and the rows by cut."""
    mask = batch["attention_mask"]
    rows = _trunk_rows(engine, batch, cuts)
    whole = _outputs(engine, mask, lambda: engine.full(batch))
    return _compared(engine, batch, rows, whole, after_another=False)


def _compared(
    engine: Engine, batch: Inputs, rows: Mapping[int, Tensor], whole: "_Whole", *, after_another: bool
) -> tuple[Engine, Mapping[int, Tensor]]:
    """The same with the head after the rows of each cut against the whole, and a pass of another batch before each.

    after_another  whether the last pass was of another batch already
    """
    try:
        for number, cut in enumerate(rows):
            if number or not after_another:
                engine.full(_other(engine))
            _check_head(engine, batch["attention_mask"], rows[cut], cut, whole)
    except ModelError:
        if engine.stem is None:
            raise
        return _proved(replace(engine, stem=None), batch, list(rows))
    return engine, rows


def _trunk_rows(engine: Engine, batch: Inputs, cuts: Sequence[int]) -> dict[int, Tensor]:
    return {cut: one.clone() for cut, one in engine.trunk(batch, cuts).items()} if cuts else {}


def _other(engine: Engine) -> Inputs:
    """A batch that passes in between. Without it, something that the whole has left behind in the model could make up
    for a lack in the rows."""
    longest = longest_text(engine.model) or max(OTHER_LENGTHS)
    return check_batch(engine.model, engine.inputs, [min(length, longest) for length in OTHER_LENGTHS], seed=1)


class _Whole(NamedTuple):
    """The last block's rows at real tokens, and the outputs that mean something."""

    rows: Tensor
    outputs: Tensor


def _check_head(engine: Engine, mask: Tensor, rows: Tensor, cut: int, whole: _Whole) -> None:
    """Raise ModelError if what the head gives from the rows at a cut is not the whole model's."""
    refused = f"{type(engine.model).__name__} cannot be cut at {cut}: its blocks take more from the first {cut} than"
    remedy = "use cut 0" if cut else "name another cut"
    stored = rows.masked_fill(~mask.bool()[..., None], 0)
    try:
        halves = _outputs(engine, mask, partial(engine.head, stored, mask.sum(1), cut))
    except CANNOT_RUN as error:
        raise ModelError(f"{refused} their rows (the head alone fails: {first_line(error)}); {remedy}") from error
    for one, other in zip(whole, halves, strict=True):
        if not close(one, other, TOLERANCE, whole.rows):
            off = difference(one, other, whole.rows)
            raise ModelError(f"{refused} their rows (head after trunk differs from the whole by {off:.1e}); {remedy}")


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
    with one_of_each_kind(engine.blocks, [cut]):
        rows = engine.trunk(ending, [cut])[cut].clone()
        whole, halves = engine.full(ending), engine.head(rows, lengths, cut)
    return not close(real_outputs(engine, whole, mask), real_outputs(engine, halves, mask), TOLERANCE, rows)
