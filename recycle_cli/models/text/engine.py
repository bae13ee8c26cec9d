"""Trunk, head and whole of one loaded text model, run in eval or training mode, padded or sample lengths apart."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from threading import RLock
from typing import Any

import torch
from torch import Tensor, nn

from recycle_cli.models.text.blocks import Block
from recycle_cli.models.text.embedder import TextEmbedder
from recycle_cli.models.text.passes import run_head, run_trunk
from recycle_cli.models.text.stem import Stem
from recycle_cli.models.text.tokens import TextInputs, inputs_of, mask_of


@dataclass(frozen=True)
class Engine:
    """Runs a model and its halves. `apart`: the model lets padding reach real tokens, so lengths are not mixed.
    `stem`: what a head leaves out beside the blocks before its cut."""

    model: Any
    blocks: Sequence[Block]
    inputs: TextInputs
    apart: bool = False
    stem: Stem | None = None
    # The halves set hooks on the model while they run: two threads take turns.
    lock: RLock = field(default_factory=RLock)

    def full(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Logits (B, labels) of the whole model, in the mode it is in."""
        batch = inputs_of(batch, self.model)
        with self.lock:
            return self._each_length(
                batch["attention_mask"].sum(1), lambda rows, end: self._output(_part(batch, rows, end))
            )

    def trunk(self, batch: Mapping[str, Tensor], cuts: Sequence[int]) -> dict[int, Tensor]:
        """Rows (B, L, width) at each cut >= 1, without gradient, in eval whatever the model's mode."""
        batch = inputs_of(batch, self.model)
        with self.lock, evaluating(self.model), torch.inference_mode():
            if not self.apart:
                return self.rows(batch, cuts)
            return self._rows_apart(batch, cuts)

    def rows(self, batch: Mapping[str, Tensor], cuts: Sequence[int]) -> dict[int, Tensor]:
        """Rows at each cut as `trunk` gives them, in the caller's gradient mode and with all lengths together."""
        return run_trunk(self.model, self.blocks, self.options(batch), cuts)

    def head(self, rows: Tensor, lengths: Tensor, cut: int) -> Tensor:
        """Logits (B, labels) from the rows at a cut >= 1 and the tokens of each sample, in the mode the model is in."""
        device = next(self.model.parameters()).device
        rows, lengths = _trainable(rows.to(device, non_blocking=True)), lengths.to(device)
        with self.lock:
            return self._each_length(lengths, lambda some, end: self._head(rows[some, :end], lengths[some], cut))

    def _head(self, rows: Tensor, lengths: Tensor, cut: int) -> Tensor:
        batch = self.inputs.stand_in(mask_of(lengths, rows.shape[1]))
        logits: Tensor = run_head(self.model, self.blocks, self.options(batch), cut, rows, self.stem)[0]
        return logits

    def _output(self, batch: Mapping[str, Tensor]) -> Tensor:
        logits: Tensor = self.model(**self.options(batch))[0]
        return logits

    def options(self, batch: Mapping[str, Tensor]) -> dict[str, Any]:
        # A cache of keys and values is of no use to one pass, and counts on every block having run.
        return {**batch, "use_cache": False} if "use_cache" in forward_names(self.model) else dict(batch)

    def _each_length(self, lengths: Tensor, compute: Callable[[Tensor | slice, int | None], Tensor]) -> Tensor:
        """One call for all samples; where lengths must not mix, one for each length, put back in order."""
        if not self.apart:
            return compute(slice(None), None)
        groups = list(_by_length(lengths))
        order = torch.cat([some for some, _ in groups]).argsort()
        return torch.cat([compute(some, length) for some, length in groups])[order]

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


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Every module in eval while it lasts, each back in its own mode afterwards."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def forward_names(model: nn.Module) -> frozenset[str]:
    """Names of the inputs that the model declares."""
    declaring = model.encoder if isinstance(model, TextEmbedder) else model
    return frozenset(inspect.signature(type(declaring).forward).parameters)


def _part(batch: Mapping[str, Tensor], rows: Tensor | slice, end: int | None) -> dict[str, Tensor]:
    return {name: tensor[rows, :end] for name, tensor in batch.items()}


def _by_length(lengths: Tensor) -> Iterator[tuple[Tensor, int]]:
    for length in lengths.unique().tolist():
        yield (lengths == length).nonzero().flatten(), int(length)


def _trainable(rows: Tensor) -> Tensor:
    """Rows made under inference mode cannot enter a graph; a copy can."""
    return rows.clone() if rows.is_inference() and torch.is_grad_enabled() else rows
