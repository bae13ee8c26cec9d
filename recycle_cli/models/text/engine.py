"""Trunk, head and whole of one loaded text model, run in eval or training mode, padded or sample lengths apart."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from threading import RLock
from typing import Any

import torch
from torch import Tensor, nn

from recycle_cli.models.eval_mode import evaluating
from recycle_cli.models.text.blocks import Block
from recycle_cli.models.text.passes import begun_at, run_head, run_trunk
from recycle_cli.models.text.pooled import Pooled
from recycle_cli.models.text.stem import Stem
from recycle_cli.models.text.tokens import TextInputs, inputs_of, mask_of


@dataclass(frozen=True)
class Engine:
    """Runs a model and its halves.

    per_row    whether the model gives outputs for each token, and not for each text
    apart      whether a text's rows or outputs depend on the padding beside it, so that lengths are not mixed
    by_length  whether that was found for rows of long texts alone: the recipe says so, since rows were mixed once
    kinds      each block's kind (`block_kinds.py`)
    stem       the module that a head leaves out beside the blocks before its cut
    """

    model: Any
    blocks: Sequence[Block]
    inputs: TextInputs
    per_row: bool = False
    apart: bool = False
    by_length: bool = False
    kinds: Sequence[str | None] = ()
    stem: Stem | None = None
    # The halves set hooks on the model while they run: two threads take turns.
    lock: RLock = field(default_factory=RLock)

    def full(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Outputs (B, labels), or (B, L, labels) if they are per row, of the whole model in the mode it is in."""
        batch = inputs_of(batch, self.model)
        mask = batch["attention_mask"]

        def compute(some: Tensor | slice, end: int | None) -> Tensor:
            return self._outputs(self.model(**self.options(_part(batch, some, end))))

        with self.lock:
            return self._each_length(compute, mask.sum(1), mask.shape[1], per_token=self.per_row)

    def trunk(self, batch: Mapping[str, Tensor], cuts: Sequence[int]) -> dict[int, Tensor]:
        """Rows (B, L, width) at each cut, without gradient, in eval whatever the model's mode."""
        batch = inputs_of(batch, self.model)
        with self.lock, evaluating(self.model), torch.inference_mode():
            if not self.apart:
                return self.rows(batch, cuts)
            return self._rows_apart(batch, cuts)

    def rows(self, batch: Mapping[str, Tensor], cuts: Sequence[int]) -> dict[int, Tensor]:
        """Rows at each cut as `trunk` gives them, in the caller's gradient mode and with all lengths together."""
        return run_trunk(self.model, self.blocks, self.options(batch), cuts)

    def head(self, rows: Tensor, lengths: Tensor, cut: int) -> Tensor:
        """Outputs as `full` gives them, in the mode the model is in, from the rows at a cut and the tokens of each
        sample."""
        rows, lengths = self._here(rows, lengths)
        rows = _trainable(rows)

        def compute(some: Tensor | slice, end: int | None) -> Tensor:
            return self._head(rows[some, :end], lengths[some], cut)

        with self.lock:
            return self._each_length(compute, lengths, rows.shape[1], per_token=self.per_row)

    def between(self, rows: Tensor, lengths: Tensor, cut: int, later: int) -> Tensor:
        """Rows at `later` from the rows at `cut`, without gradient, in eval whatever the model's mode."""
        rows, lengths = self._here(rows, lengths)

        def compute(some: Tensor | slice, end: int | None) -> Tensor:
            return self._advanced(rows[some, :end], lengths[some], cut, later)

        with self.lock, evaluating(self.model), torch.inference_mode():
            return self._each_length(compute, lengths, rows.shape[1], per_token=True)

    def options(self, batch: Mapping[str, Tensor]) -> dict[str, Any]:
        """A batch as the model takes it."""
        # A cache of keys and values is of no use to one pass, and counts on every block having run.
        return {**batch, "use_cache": False} if "use_cache" in forward_names(self.model) else dict(batch)

    def _here(self, rows: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        device = next(self.model.parameters()).device
        return rows.to(device, non_blocking=True), lengths.to(device)

    def _head(self, rows: Tensor, lengths: Tensor, cut: int) -> Tensor:
        inputs = self.options(self.inputs.stand_in(mask_of(lengths, rows.shape[1])))
        return self._outputs(run_head(self.model, self.blocks, inputs, cut, rows, self.stem))

    def _advanced(self, rows: Tensor, lengths: Tensor, cut: int, later: int) -> Tensor:
        batch = self.inputs.stand_in(mask_of(lengths, rows.shape[1]))
        with begun_at(cut, rows, self.blocks, self.stem):
            return self.rows(batch, [later])[later]

    def _outputs(self, output: Any) -> Tensor:
        """The first tensor that the model returns. Question answering gives start and end of a span as two tensors
        (B, L): they become the two labels of each token."""
        first: Tensor = output[0]
        if not self.per_row or first.ndim > 2:
            return first
        ends = [one for one in output[:2] if isinstance(one, Tensor) and one.shape == first.shape]
        return torch.stack(ends, dim=-1) if len(ends) == 2 else first

    def _each_length(
        self, compute: Callable[[Tensor | slice, int | None], Tensor], lengths: Tensor, longest: int, *, per_token: bool
    ) -> Tensor:
        """One call of `compute` for all samples, or if lengths must not mix one for each length, put back in order.

        Values that are `per_token` are padded to the `longest` with zeros.
        """
        if not self.apart:
            return compute(slice(None), None)
        groups = list(_by_length(lengths))
        parts = [compute(some, length) for some, length in groups]
        if per_token:
            parts = [nn.functional.pad(part, (0, 0, 0, longest - part.shape[1])) for part in parts]
        return torch.cat(parts)[torch.cat([some for some, _ in groups]).argsort()]

    def _rows_apart(self, batch: Mapping[str, Tensor], cuts: Sequence[int]) -> dict[int, Tensor]:
        parts = [
            (some, end, self.rows(_part(batch, some, end), cuts))
            for some, end in _by_length(batch["attention_mask"].sum(1))
        ]
        shape = batch["input_ids"].shape
        whole = {cut: rows.new_zeros((*shape, rows.shape[-1])) for cut, rows in parts[0][2].items()}
        for some, end, rows in parts:
            for cut in cuts:
                whole[cut][some, :end] = rows[cut]
        return whole

    def keeping_lengths_apart(self) -> "Engine":
        """The same engine for a model in which padding reaches real tokens."""
        return replace(self, apart=True)


def forward_names(model: nn.Module) -> frozenset[str]:
    """Names of the inputs that the model declares."""
    declaring = model.encoder if isinstance(model, Pooled) else model
    return frozenset(inspect.signature(type(declaring).forward).parameters)


def _part(batch: Mapping[str, Tensor], rows: Tensor | slice, end: int | None) -> dict[str, Tensor]:
    return {name: tensor[rows, :end] for name, tensor in batch.items()}


def _by_length(lengths: Tensor) -> Iterator[tuple[Tensor, int]]:
    for length in lengths.unique().tolist():
        yield (lengths == length).nonzero().flatten(), int(length)


def _trainable(rows: Tensor) -> Tensor:
    """Rows made under inference mode cannot enter a graph; a copy can."""
    return rows.clone() if rows.is_inference() and torch.is_grad_enabled() else rows
