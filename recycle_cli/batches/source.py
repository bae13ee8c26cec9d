"""What training and evaluation read: one contract for stored rows and for raw inputs."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
import xxhash

from recycle_cli.batches.sampler import Indices, Sampler

Tensors = dict[str, torch.Tensor]

INPUTS: tuple[str, ...] = ()
"""The cuts of a source that gives prepared inputs, and no rows."""


class Batch(NamedTuple):
    """The places of a batch's samples in the data, and their tensors.

    From a store these are `rows` (B, L, *stored_shape) as stored, `lengths` (B,), for int8 and int4 `scales` (B, L),
    and for int4 `packed` (0, *shape), which has the shape of the rows and no data; `widened` makes float32 rows of
    them. Of several cuts, all but `lengths` lie behind the cut's name, as in `3/rows`. Without a store, what the
    preprocessor collates.
    """

    members: Indices
    tensors: Tensors


@dataclass(frozen=True)
class Epoch:
    """The batches of one pass over the data, planned before anything is read, and how to read them from one on."""

    batches: list[Indices]
    load: Callable[[int], Iterator[Batch]]


class RowSource(Protocol):
    """Samples at one cut or at several, read in the batches that a sampler draws."""

    @property
    def cuts(self) -> tuple[str, ...]:
        """Where the rows were taken; INPUTS for prepared inputs."""

    @property
    def lengths(self) -> Indices:
        """Rows of each sample (n,)."""

    @property
    def restriction(self) -> str:
        """What limits which samples can share a batch, as the beginning of a message; empty if nothing does."""

    def epoch(self, sampler: Sampler, number: int) -> Epoch:
        """The batches of epoch `number` (from 0)."""


def planned(batches: list[Indices], load: Callable[[Indices], Tensors]) -> Epoch:
    """An epoch of these batches, each of which `load` reads by itself."""

    def read(start: int) -> Iterator[Batch]:
        for members in batches[start:]:
            yield Batch(members, load(members))

    return Epoch(batches, read)


def order_digest(batches: Sequence[Indices]) -> str:
    """xxh3_64, 16 hexadecimal digits, of an epoch's batches: a resume goes on only if they are still the same."""
    return xxhash.xxh3_64_hexdigest(np.concatenate(batches).tobytes())
