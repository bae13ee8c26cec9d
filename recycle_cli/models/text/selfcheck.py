"""Prove on the model at hand that head after trunk is the whole model, so that no architecture is silently wrong."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from recycle_cli.errors import ModelError
from recycle_cli.models.eval_mode import evaluating
from recycle_cli.models.forwards import watching
from recycle_cli.models.hub import first_line
from recycle_cli.models.preprocessor import Inputs
from recycle_cli.models.text.blocks import Block, first
from recycle_cli.models.text.engine import Engine
from recycle_cli.models.text.tokens import TYPES, TextInputs, longest_text, mask_of, text_config

LENGTHS = (7, 4, 2)
"""Unequal, so that padding is at work, and another count than samples, so that the two axes cannot be mistaken."""

OTHER_LENGTHS = (3, 9, 6)
"""Lengths of the batch that passes in between: anything that it leaves in the model does not fit the first."""

TOLERANCE = 2e-5
"""Largest float32 difference, as a share of the largest value compared, that is rounding and not an error."""

PADDING_TOLERANCE = 1e-3
"""The same between a text alone and a text padded, which other kernels compute; a real influence is far larger."""

Alone = list[tuple[Tensor, Tensor]]
"""The rows of the last block and the outputs of texts by themselves."""

NOUGHT = 0.05
"""Share of the rows' largest value that outputs are compared by at least. The only output of a regression may lie as
near to zero as it likes, and its rounding is that of the sum that it is."""

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


def checked(engine: Engine, batch: Inputs, cuts: Sequence[int]) -> tuple[Engine, Alone]:
    """The engine with the settings that the model turns out to need, and the texts of the batch by themselves.

    Raises ModelError if a cut changes the output.
    """
    with evaluating(engine.model), torch.no_grad():
        try:
            alone = each_alone(engine, batch)
            leaks = leak(engine, batch, alone)
        except CANNOT_RUN as error:
            raise ModelError(
                f"{type(engine.model).__name__} cannot be cut: a text of {min(LENGTHS)} to {max(LENGTHS)} tokens does "
                f"not pass alone ({first_line(error)})"
            ) from error
        if leaks:
            engine = engine.keeping_lengths_apart()
        engine = _proved(engine, batch, cuts)
        if cuts and _final_pad_matters(engine, batch, cuts[-1]):
            engine = replace(engine, inputs=replace(engine.inputs, refuses_final_pad=True))
    return engine, alone


def depends_on_task(engine: Engine, batch: Inputs, cuts: Sequence[int]) -> bool:
    """Whether the model with its task layer gives its blocks other inputs than the bare one (Longformer does)."""
    through = engine.trunk(batch, cuts)
    try:
        bare = replace(engine, model=engine.model.base_model).trunk(batch, cuts)
    except CANNOT_RUN:
        return True
    real = batch["attention_mask"].bool()
    return not all(close(through[cut][real], bare[cut][real], TOLERANCE) for cut in cuts)


def each_alone(engine: Engine, batch: Inputs) -> Alone:
    """The last block's rows and the outputs of each text of the batch, never beside a longer one."""
    lengths = batch["attention_mask"].sum(1)
    found: dict[int, tuple[Tensor, Tensor]] = {}
    for length in lengths.unique().tolist():
        texts = (lengths == length).nonzero().flatten()
        with _last_rows(engine.blocks) as seen:
            outputs = engine.full({name: one[texts, :length] for name, one in batch.items()})
        found |= {text: (seen[0][place, :length], outputs[place]) for place, text in enumerate(texts.tolist())}
    return [found[text] for text in range(len(lengths))]


def leak(engine: Engine, batch: Inputs, alone: Alone, tolerance: float = PADDING_TOLERANCE) -> str | None:
    """What of a text depends on the texts and the padding beside it: `rows` (convolutions over tokens, Fourier mixing,
    windows counted over the padded length), `outputs` alone (pooling after the blocks), or nothing.

    `alone`: the rows and outputs of each text by itself.
    """
    together = replace(engine, apart=False)
    with _last_rows(engine.blocks) as seen:
        outputs = together.full(batch)
    found = None
    for row, ((own_rows, own_outputs), length) in enumerate(zip(alone, batch["attention_mask"].sum(1), strict=True)):
        if not close(own_rows, seen[0][row, :length], tolerance):
            return "rows"
        theirs = outputs[row, :length] if engine.per_row else outputs[row]
        if not close(own_outputs, theirs, tolerance, own_rows):
            found = "outputs"
    return found


def _proved(engine: Engine, batch: Inputs, cuts: Sequence[int]) -> Engine:
    """The engine, without its stem if that does more than give the first block its rows."""
    longest = longest_text(engine.model) or max(OTHER_LENGTHS)
    between = check_batch(engine.model, engine.inputs, [min(length, longest) for length in OTHER_LENGTHS], seed=1)
    try:
        _check_cuts(engine, batch, between, cuts)
    except ModelError:
        if engine.stem is None:
            raise
        return _proved(replace(engine, stem=None), batch, cuts)
    return engine


def _check_cuts(engine: Engine, batch: Inputs, between: Inputs, cuts: Sequence[int]) -> None:
    """Raise ModelError if the head's outputs from rows are not the whole model's, after a pass of another batch.

    Without that pass, something that the whole has left behind in the model could make up for a lack in the rows.
    """
    if not cuts:
        return
    mask = batch["attention_mask"]
    rows = {cut: one.clone() for cut, one in engine.trunk(batch, cuts).items()}
    whole = _outputs(engine, mask, lambda: engine.full(batch))
    for cut in cuts:
        refused = (
            f"{type(engine.model).__name__} cannot be cut at {cut}: its blocks take more from the first {cut} than"
        )
        stored = rows[cut].masked_fill(~mask.bool()[..., None], 0)
        engine.full(between)
        try:
            halves = _outputs(engine, mask, partial(engine.head, stored, mask.sum(1), cut))
        except CANNOT_RUN as error:
            raise ModelError(f"{refused} their rows (the head alone fails: {first_line(error)}); use cut 0") from error
        for one, other in zip(whole, halves, strict=True):
            if not close(one, other, TOLERANCE, whole[0]):
                off = difference(one, other, whole[0])
                raise ModelError(
                    f"{refused} their rows (head after trunk differs from the whole by {off:.1e}); use cut 0"
                )


def _outputs(engine: Engine, mask: Tensor, compute: Callable[[], Tensor]) -> list[Tensor]:
    """The last block's rows at real tokens, and the outputs."""
    with _last_rows(engine.blocks) as seen:
        outputs = real_outputs(engine, compute(), mask)
    if engine.apart:
        return [*(rows.flatten(0, 1) for rows in seen), outputs]
    return [*(rows[:, : mask.shape[1]][mask.bool()] for rows in seen), outputs]


def real_outputs(engine: Engine, outputs: Tensor, mask: Tensor) -> Tensor:
    """The outputs that mean something: those of samples, or those of real tokens."""
    return outputs[mask.bool()] if engine.per_row else outputs


def _final_pad_matters(engine: Engine, batch: Inputs, cut: int) -> bool:
    """Whether a text that ends in the padding token would be pooled elsewhere by the whole model than by the head."""
    mask = batch["attention_mask"]
    lengths = mask.sum(1)
    ids = batch["input_ids"].clone()
    ids[torch.arange(len(ids)), lengths - 1] = engine.inputs.pad_id
    ending: Mapping[str, Tensor] = {**batch, "input_ids": ids}
    rows = engine.trunk(ending, [cut])[cut].clone()
    whole, halves = engine.full(ending), engine.head(rows, lengths, cut)
    return not close(real_outputs(engine, whole, mask), real_outputs(engine, halves, mask), TOLERANCE, rows)


@contextmanager
def _last_rows(blocks: Sequence[Block]) -> Iterator[list[Tensor]]:
    """Collect the rows that the last block returns inside the block of `with`."""
    seen: list[Tensor] = []
    last = blocks[-1]
    with watching(last.parts[-1].module, after=lambda args, kwargs, output: seen.append(last.turned(first(output)))):
        yield seen


def close(one: Tensor, other: Tensor, tolerance: float, rows: Tensor | None = None) -> bool:
    """Whether they differ by no more than this share of the largest value; `rows`: what they are outputs of, if so."""
    return difference(one, other, rows) <= tolerance


def difference(one: Tensor, other: Tensor, rows: Tensor | None = None) -> float:
    """Largest difference as a share of the largest value, which for the outputs of `rows` is no less than NOUGHT of
    theirs."""
    largest = float(one.abs().max())
    if rows is not None:
        largest = max(largest, NOUGHT * float(rows.abs().max()))
    return float((one - other).abs().max()) / max(largest, 1e-30)
