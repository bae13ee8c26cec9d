"""The cut that moves: rows behind frozen blocks are written as they come, and read from the next epoch on."""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from recycle_cli.batches import Epoch, Indices, RowSource, StoredRows, Tensors, each_rows
from recycle_cli.batches.source import planned
from recycle_cli.errors import DataError, RankError, StorageError
from recycle_cli.recipe import Recipe, row_bytes
from recycle_cli.reports import human, say
from recycle_cli.runs import FreezeState, training_of
from recycle_cli.runtime.ranks import Ranks
from recycle_cli.settings import FreezeSettings
from recycle_cli.store import Store
from recycle_cli.training.freezing.head import FreezingHead
from recycle_cli.training.freezing.scratch import NewRows, Scratch
from recycle_cli.training.head import lengths_of
from recycle_cli.training.phases import Phases

WRITING, READING = 300e6, 1e9
"""Bytes a second, of a plain disk; not measured on the machine: they decide only where a move hardly pays at all."""

TRIED = 1 / 3
"""Of what an epoch would save, as much must be gained beyond the bytes: the saving is not known exactly."""


@dataclass(frozen=True)
class Computing:
    """How rows are moved to a later cut. `probe`: gives the inputs of one sample, on the device."""

    autocast: Callable[[], AbstractContextManager[object]]
    phases: Phases
    probe: Callable[[], Tensors]


@dataclass
class MovingCut:
    """From where a training reads, and what it writes to read it later.

    folder     where the RUN is trained
    refused    why rows behind frozen blocks cannot be kept; empty if they can
    in_memory  whether they are read into memory
    ranks      the processes that train together, each of which writes the rows of its own samples; None: it is alone
    """

    folder: Path
    head: FreezingHead
    settings: FreezeSettings
    scratch: Scratch
    computing: Computing
    refused: str = ""
    in_memory: bool = False
    ranks: Ranks | None = None
    state: FreezeState = field(default_factory=FreezeState)
    _rows: int = 0
    _run: str = ""
    _held: Store | None = None
    _new: NewRows | None = None
    _read: dict[int, StoredRows] = field(default_factory=dict)
    _recipes: dict[str, Recipe] = field(default_factory=dict)
    _parts: dict[tuple[str | None, str], Callable[..., Tensor]] = field(default_factory=dict)

    @property
    def start(self) -> str:
        """The cut where the head began."""
        return self.head.layers.cuts[0]

    @property
    def here(self) -> str:
        """The cut of what is read."""
        return self.start if self._held is None else next(iter(self._held.recipe.cuts))

    def begin(self, state: FreezeState, sources: Sequence[RowSource]) -> None:
        """Open the stores that a checkpoint goes on with; one that is not whole is given up, which costs time alone."""
        self.state, self._run = state, training_of(self.folder)
        self._rows = self.scratch.rows([source.lengths for source in sources])
        if state.reads is not None:
            self._held = self.scratch.open(self._recipe(state.reads))
            if not self._all(self._held is not None):
                self._held = None
                say(f"{self.scratch.folder}: the rows at cut {state.reads} are not whole; the earlier ones are read")
                state.reads = None
        if state.writes is not None:
            self._write()
        self.drop_others()

    def moved(self, epoch: Epoch, part: int, own: Callable[[Indices], Indices]) -> Epoch:
        """The batches of an epoch, at the cut that is read now.

        part  0 for the training data, 1 for those of evaluation
        own   the samples of a batch that this process reads
        """
        if self._held is None:
            return epoch
        if part not in self._read:
            held = self.scratch.reading(self._held, part)
            self._read[part] = held.in_memory() if self.in_memory else held
        rows = self._read[part]
        return planned(epoch.batches, lambda members: rows.load(own(members)))

    def advanced(self, part: int, members: Indices, batch: Tensors) -> Tensors:
        """A batch at the cut where the head begins now; rows of the cut that is being written are kept on the way."""
        here, end = self.here, self.head.begins
        if self._new is not None and here != end:
            batch, here = self._moved(part, batch, here, self._new.cut), self._new.cut
            self._keep(part, members, batch)
        return batch if here == end else self._moved(part, batch, here, end)

    def settle(self, epoch: int) -> None:
        """After an epoch: read from the new cut from now on, if the rows of every sample are there."""
        if not self._is_complete():
            return
        assert self._new is not None
        cut, started = self._new.cut, time.perf_counter()
        self.close()
        self.state.writes = None
        if self.ranks is not None:
            self.ranks.wait()  # until all have sealed their rows
        held = self.scratch.open(self._recipe(cut))
        if not self._all(held is not None) or held is None:
            say(f"{self.scratch.folder}: the rows at cut {cut} cannot be read again; the earlier ones are read on")
            return
        self._held, self.state.reads = held, cut
        self._read.clear()
        seconds = time.perf_counter() - started
        self.state.moves.append({"epoch": epoch + 1, "cut": cut, "bytes": held.bytes, "seal_seconds": seconds})

    def _is_complete(self) -> bool:
        """Whether new rows are being written and all of them are there, those that other ranks have written with them.
        If one of the ranks has given up, all do."""
        if self._new is None and self.ranks is None:
            return False
        if not self._all(self._new is not None):
            self._stop_writing()
            return False
        assert self._new is not None
        lacking = self._new.lacking
        if self.ranks is not None:
            lacking = np.logical_and.reduce([one.numpy() for one in self.ranks.gather(torch.from_numpy(lacking))])
        return not lacking.any()

    def _all(self, mine: bool) -> bool:
        """Whether all ranks say so."""
        return mine if self.ranks is None else all(said for (said,) in self.ranks.numbers([mine]))

    def plan(self, left: int, phases: Mapping[str, float]) -> None:
        """Decide whether the coming epoch writes the rows at the cut where the head begins now.

        left    epochs after the coming one
        phases  seconds of the last epoch
        """
        cut = self.head.begins
        wanted = self._is_wanted(cut, left, phases)
        if self.ranks is not None:
            wanted = self.ranks.told(wanted)
        if wanted:
            self.state.writes = cut
            self._write()

    def _is_wanted(self, cut: str, left: int, phases: Mapping[str, float]) -> bool:
        """Whether rows at a cut are to be written in the coming epoch, with so many epochs after it."""
        if self.state.writes is not None or self.settings.cache == "never" or self.refused or left < 1:
            return False
        if cut == self.here:
            return False
        shape = tuple(self.head.split.trunk_to(cut)(self.computing.probe()).shape[2:])
        size = self._rows * row_bytes(shape, self.scratch.dtype)
        return self._fits(size, cut) and (self.settings.cache == "always" or pays(self._saved(phases), size, left))

    def drop_others(self) -> None:
        """Remove rows that are neither read nor written any more; of several ranks the first does it."""
        if self.ranks is not None and not self.ranks.first:
            return
        cuts = (self.state.reads, self.state.writes)
        self.scratch.keep_only([self._recipe(cut) for cut in cuts if cut is not None])

    def seal(self) -> None:
        """Make what was written durable, before a checkpoint counts on it. As the checkpoint, it is no phase."""
        if self._new is not None:
            self._new.seal()

    def close(self) -> None:
        """Stop writing; what was written is sealed."""
        new, self._new = self._new, None
        if new is not None:
            new.close()

    def _recipe(self, cut: str) -> Recipe:
        """The recipe of the rows at a cut before which nothing trains any more: its weights are hashed once."""
        if cut not in self._recipes:
            self._recipes[cut] = self.scratch.recipe(cut, self._run)
        return self._recipes[cut]

    def _write(self) -> None:
        assert self.state.writes is not None
        recipe = self._recipe(self.state.writes)
        if self.ranks is not None and self.ranks.told(recipe.fingerprint) != recipe.fingerprint:
            raise RankError(f"the frozen blocks of rank {self.ranks.number} are not those of rank 0; train again")
        with nullcontext() if self.ranks is None else self.ranks.in_turn():
            try:
                self._new = self.scratch.begin(recipe)
            except StorageError as error:
                self._give_up(error)

    def _keep(self, part: int, members: Indices, batch: Tensors) -> None:
        assert self._new is not None
        try:
            with self._phase(part, "write"):
                self._new.add(part, members, batch["rows"], batch["lengths"])
        except (StorageError, DataError) as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        """Go on from the earlier rows if the new ones cannot be kept; an error if they must be."""
        self.refused = str(error)
        self._stop_writing()
        if self.ranks is None:  # another rank may be writing on, until the end of the epoch
            self.drop_others()
        if self.settings.cache == "always":
            raise type(error)(f"the rows behind the frozen blocks cannot be kept: {error}") from error
        say(f"the rows behind the frozen blocks are not kept ({error}); going on from the earlier ones")

    def _stop_writing(self) -> None:
        """Give up the rows that are being written."""
        new, self._new, self.state.writes = self._new, None, None
        if new is not None:
            new.abandon()

    def _phase(self, part: int, name: str) -> AbstractContextManager[None]:
        """The block as a phase of the training; evaluations are none."""
        return nullcontext() if part else self.computing.phases.of(name)

    def _moved(self, part: int, batch: Tensors, here: str, cut: str) -> Tensors:
        """The rows of a batch at a later cut, in eval and without gradient."""
        inputs = not each_rows(batch)
        key = (None if inputs else here, cut)
        if key not in self._parts:
            self._parts[key] = self.head.split.trunk_to(cut) if inputs else self.head.split.between(here, cut)
        with self._phase(part, "advance"), self.computing.autocast():
            if not inputs:
                return {"rows": self._parts[key](batch["rows"], batch["lengths"]), "lengths": batch["lengths"]}
            rows, lengths = self._parts[key](batch), lengths_of(batch)
        if lengths is None:
            lengths = torch.ones(len(rows), dtype=torch.int64, device=rows.device)
        return {"rows": rows, "lengths": lengths}

    def _fits(self, size: int, cut: str) -> bool:
        """Whether the disk, and what the user lets them take, has room for these rows beside the old ones."""
        size += size // 32 + (1 << 20)  # checksums, keys and documents
        both = size + (0 if self._held is None else self._held.bytes)
        free, most = shutil.disk_usage(self.folder).free, self.settings.max_disk
        if size <= free and (most is None or both <= most):
            return True
        why = f"{human('bytes', free)} are free" if size > free else f"--max-disk is {human('bytes', most)}"
        say(f"the rows at cut {cut} are not kept: with the earlier ones {human('bytes', both)}, and {why}")
        return False

    def _saved(self, phases: Mapping[str, float]) -> float:
        """Seconds of the last epoch that an epoch from the new cut would not need: those of moving rows, and of the
        forward pass a share for each block that has frozen since."""
        cuts = self.head.layers.cuts
        began, now = (cuts.index(cut) for cut in (self.state.began or self.start, self.head.begins))
        share = (now - began) / max(1, len(cuts) - 1 - began)
        return phases.get("advance", 0.0) + share * phases.get("forward", 0.0)


def pays(saved: float, size: int, left: int) -> bool:
    """Whether rows of `size` bytes are worth their writing, if an epoch that reads them needs `saved` seconds less.

    left  epochs that would read them; none if they would be written in the last one
    """
    return left >= 1 and left * saved > TRIED * saved + size / WRITING + left * size / READING
