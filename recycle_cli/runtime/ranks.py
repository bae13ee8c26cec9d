"""The processes that `torchrun` or `accelerate launch` has started for one training, and what they tell one another."""

import itertools
import os
import pickle
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from recycle_cli.errors import RankError, UsageError
from recycle_cli.runtime.last_word import speak_through
from recycle_cli.runtime.memory import agree_on, free_memory

T = TypeVar("T")

VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What a launcher sets for each of its processes."""

TIMEOUT = timedelta(hours=12)
"""How long a rank waits for the others, which may be filling a store. One that has died is noticed at once."""

GATHERING = timedelta(minutes=10)
"""How long a rank waits at the beginning until all of them have started."""

BEAT = 0.5
"""Seconds between two signs of life."""

SILENCE = 4.0
"""Seconds without a sign of life after which a rank counts as dead, once something has failed."""

_groups = itertools.count()
"""Numbers the groups that this process has made; those of one number meet."""

OWN, OF_OTHERS = "own: ", "others: "
"""Stand before what a rank has said: whether it has failed itself."""


class Ranks:
    """This process and the others of its group. Every method but `speak` must be called by all of them alike.

    number  this process's, from 0; the first one writes what all have done
    count   how many there are
    """

    def __init__(self) -> None:
        self.number, self.count = dist.get_rank(), dist.get_world_size()
        self._store = dist.distributed_c10d._get_default_store()
        self._ended = threading.Event()
        self._found: list[int] = []
        self._beating = threading.Thread(target=self._beat, daemon=True)
        self._beating.start()

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.number == 0

    def numbers(self, own: Sequence[int]) -> list[list[int]]:
        """The numbers that each rank gives, equally many, by rank."""
        return [one.tolist() for one in self.gather(torch.tensor(own, dtype=torch.int64))]

    def gather(self, own: torch.Tensor) -> list[torch.Tensor]:
        """The tensors of all ranks, which have one shape, by rank; without a gradient."""
        own = own.detach().contiguous()
        found = [torch.empty_like(own) for _ in range(self.count)]
        with self.guarded():
            dist.all_gather(found, own)
        return found

    def told(self, value: T) -> T:
        """What the first rank gives, for all of them."""
        data = torch.frombuffer(bytearray(pickle.dumps(value)), dtype=torch.uint8) if self.first else None
        ((size, *_), *_) = self.numbers([0 if data is None else len(data)])
        told = torch.empty(size, dtype=torch.uint8) if data is None else data
        self.spread(told)
        return value if self.first else pickle.loads(told.numpy().tobytes())  # noqa: S301 - the first rank's own

    def spread(self, tensor: torch.Tensor) -> None:
        """Give the numbers of the first rank's tensor to those of the others, in place."""
        with self.guarded():
            dist.broadcast(tensor, 0)

    def wait(self) -> None:
        """Wait until every rank has got here."""
        self.numbers([self.number])

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """The first rank runs the block, then the others."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """The block speaks to the other ranks. Raises RankError, with those that have ended, if it cannot."""
        try:
            yield
        except RuntimeError as error:
            ended = self._ended_ones()
            if not ended:
                raise
            raise RankError(_gone(ended)) from error

    def _ended_ones(self) -> list[int]:
        """The ranks that have said so, or give no sign of life. Without a launcher's store the first rank keeps what
        all of them say: if that cannot be read, it is the one."""
        try:
            self._found = [one for one in self._others if self._said(one)] or self._silent()
        except RuntimeError:
            self._found = [0]
        return self._found

    def speak(self, message: str, of_others: bool) -> str | None:
        """What this rank says of a failure: of all that fail alike only the first says so.

        of_others  this rank was interrupted, or could not reach the others, which may be because one of them has failed
        """
        try:
            self._store.set(f"recycle/said/{self.number}", f"{OF_OTHERS if of_others else OWN}{message}")
            return self._of_others(message) if of_others else self._of_itself(message)
        except RuntimeError:  # the process that keeps what ranks say is gone
            return message if self.number == 1 or self.first else None

    def _of_others(self, message: str) -> str | None:
        """The same for a failure that may be another's: if that one has told it, it is told; if it has died, the first
        of the others names it."""
        if any(self._said(one).startswith(OWN) for one in self._others):
            return None
        dead = [one for one in self._found or self._silent() if not self._said(one)]
        if any(one < self.number for one in self._others if one not in dead):
            return None
        return _gone(dead) if dead else message

    def _of_itself(self, message: str) -> str | None:
        """The same for a failure of this rank's own: a rank before it may be saying the very same."""
        deadline = time.monotonic() + SILENCE / 2
        while self.number and time.monotonic() < deadline:
            said = [self._said(one) for one in range(self.number)]
            if f"{OWN}{message}" in said:
                return None
            if all(said):
                break
            time.sleep(BEAT / 5)
        return message if self.first else f"rank {self.number}: {message}"

    @property
    def _others(self) -> list[int]:
        return [one for one in range(self.count) if one != self.number]

    def _silent(self) -> list[int]:
        """The ranks that give no sign of life for some seconds."""
        before = {one: self._read(f"beat/{one}") for one in self._others}
        deadline = time.monotonic() + SILENCE
        while before and time.monotonic() < deadline:
            time.sleep(BEAT / 5)
            before = {one: was for one, was in before.items() if self._read(f"beat/{one}") == was}
        return list(before)

    def _said(self, rank: int) -> str:
        """How a rank has said that it fails; empty if it has not."""
        return self._read(f"said/{rank}")

    def leave(self) -> None:
        """Give no more signs of life."""
        self._ended.set()
        self._beating.join()

    def _beat(self) -> None:
        """Give signs of life."""
        own, number = self._store, 0
        with suppress(RuntimeError):
            own = self._store.clone()
            while not self._ended.is_set():
                own.set(f"recycle/beat/{self.number}", str(number := number + 1))
                self._ended.wait(BEAT)

    def _read(self, key: str) -> str:
        """What a rank has written; empty if it has not."""
        name = f"recycle/{key}"
        return self._store.get(name).decode() if self._store.check([name]) else ""


def _gone(ranks: Sequence[int]) -> str:
    """That ranks have ended, and what to do."""
    which = f"rank {ranks[0]} has" if len(ranks) == 1 else f"ranks {', '.join(map(str, ranks))} have"
    return f"{which} ended, and so do the others; the same command with --resume goes on from the last checkpoint"


def launched() -> bool:
    """Whether a launcher has started this process as one of a group."""
    return dist.is_available() and all(name in os.environ for name in VARIABLES)


@contextmanager
def joined(device: torch.device) -> Iterator[Ranks | None]:
    """Inside the block this process is one of its group; None if it is alone.

    A group that the caller has made is used and left as it is. Tensors on a GPU travel by NCCL, others by gloo. Raises
    UsageError if the group cannot be made.
    """
    if not launched() and not (dist.is_available() and dist.is_initialized()):
        yield None
        return
    made = not dist.is_initialized()
    if made:
        _make_group(device)
    ranks = Ranks()
    speak_through(ranks.speak)
    agree_on(min(size for (size,) in ranks.numbers([free_memory()])) // ranks.count)
    yield ranks
    # Not after an error, of which this process is still to tell the others.
    ranks.wait()
    ranks.leave()
    speak_through(lambda message, of_others: message if ranks.first else None)
    agree_on(None)
    if made:
        dist.destroy_process_group()


def _make_group(device: torch.device) -> None:
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"--device {device.type}: several processes train on CPUs or on CUDA GPUs; take one of these")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        store, number, count = next(rendezvous("env://", timeout=GATHERING))
        store = PrefixStore(f"group-{next(_groups)}", store)  # what an earlier group has left there is of no use
        store.set(f"recycle/come/{number}", "yes")
        come = [f"recycle/come/{rank}" for rank in range(count)]
        with suppress(RuntimeError):
            store.wait(come, GATHERING)
        absent = [str(rank) for rank, key in enumerate(come) if not store.check([key])]
        if absent:
            raise RuntimeError(f"rank {', '.join(absent)} has not come within {GATHERING.seconds // 60} minutes")
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=TIMEOUT, store=store, rank=number, world_size=count)
    except (RuntimeError, ValueError) as error:
        about = ", ".join(f"{name}={os.environ[name]}" for name in VARIABLES)
        said = " ".join(str(error).split())
        raise UsageError(f"the processes cannot reach one another ({said}); they were started with {about}") from error
