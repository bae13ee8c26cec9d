"""Bench reading samples in random order from the store, as stored and as float32, beside a memory map of the rows."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from recycle_cli.batches import Indices, StoredRows, Tensors, widened
from recycle_cli.bench.layout import READ_SIZES
from recycle_cli.bench.subject import Subject
from recycle_cli.bench.timing import Clock, Run, Runner


@dataclass(frozen=True)
class Flat:
    """The rows of all samples in one file, one after another. Sample i has rows offsets[i] to offsets[i + 1]."""

    values: npt.NDArray[np.generic]
    offsets: Indices

    def load(self, members: Indices) -> Tensors:
        """Load a batch as StoredRows.load does: `rows` (B, L, *shape) padded with zeros, and `lengths` (B,)."""
        lengths = self.offsets[members + 1] - self.offsets[members]
        rows = np.zeros((len(members), int(lengths.max()), *self.values.shape[1:]), self.values.dtype)
        for slot, start, length in zip(rows, self.offsets[members].tolist(), lengths.tolist(), strict=True):
            slot[:length] = self.values[start : start + length]
        return {"rows": torch.from_numpy(rows), "lengths": torch.from_numpy(lengths)}


@dataclass(frozen=True)
class Widened:
    """The store's rows as the head is given them."""

    rows: StoredRows

    def load(self, members: Indices) -> Tensors:
        """Load a batch: `rows` (B, L, *shape) float32, and `lengths` (B,)."""
        batch = self.rows.load(members)
        return {"rows": widened(batch), "lengths": batch["lengths"]}


def runners(subject: Subject) -> dict[str, Runner]:
    """Runners of ours and a memory map at 1, 32 and 256 samples a batch. The page cache holds both."""
    cut = subject.resolve(subject.settings.cuts[0])
    stored = StoredRows.of(subject.store, cut, subject.positions)
    flat = _flat(subject, stored)
    found: dict[str, Runner] = {}
    for name, size in READ_SIZES.items():
        found[f"read.{name}.store"] = partial(_read, subject, stored, stored, size)
        found[f"read.{name}.widened"] = partial(_read, subject, Widened(stored), stored, size)
        found[f"read.{name}.memmap"] = partial(_read, subject, flat, stored, size)
    return found


def _flat(subject: Subject, stored: StoredRows) -> Flat:
    values, _ = subject.store.gather_rows(stored.cut, stored.positions)
    path = subject.scratch / "rows.bin"
    values.tofile(path)
    offsets = np.concatenate([[0], np.cumsum(stored.lengths)]).astype(np.int64)
    return Flat(np.memmap(path, values.dtype, "r", shape=values.shape), offsets)


def _read(subject: Subject, source: StoredRows | Widened | Flat, stored: StoredRows, size: int, repetition: int) -> Run:
    """Time reading every sample once, in a random order that is the same for all readers."""
    clock = Clock(subject.device)
    batches = list(_random(len(stored.lengths), size, subject.settings.seed + repetition + 1))
    with clock.running():
        for members in batches:
            source.load(members)
    return Run(clock.seconds, len(stored.lengths), bytes=stored.bytes)


def _random(samples: int, size: int, seed: int) -> Iterator[Indices]:
    order = np.random.default_rng(seed).permutation(samples)
    return (order[start : start + size] for start in range(0, samples, size))
