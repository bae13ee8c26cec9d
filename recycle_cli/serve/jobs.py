"""One request's samples on their way to outputs, and the outputs that were made last, kept in memory."""

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from recycle_cli.errors import RecycleError
from recycle_cli.keys import Sample
from recycle_cli.models import Prepared
from recycle_cli.scorer import Scorer

_ENTRY = 512
"""Bytes that an entry of the memory takes beside its numbers."""


@dataclass(frozen=True, slots=True)
class Found:
    """What was found out about one sample.

    outputs  of each RUN by its name: (width,) or (rows, width), float32
    tokens   rows that the sample has, as the model reads it
    cut_off  whether its text was longer than the model takes
    """

    outputs: Mapping[str, Tensor]
    tokens: int
    cut_off: bool


class Job:
    """The samples of one request. Threads put what they find, in any order; the last one wakes the request.

    `hits` counts the samples that were not computed; `gone`: nobody waits for the answer any more.
    """

    def __init__(self, count: int) -> None:
        self.results: list[Found | RecycleError | None] = [None] * count
        self.hits = 0
        self.gone = False
        self._left = count
        self._lock = threading.Lock()
        self._loop = asyncio.get_running_loop()
        self.finished: asyncio.Future[None] = self._loop.create_future()
        if not count:
            self.finished.set_result(None)

    def put(self, place: int, result: Found | RecycleError) -> None:
        """The result of the sample at `place`."""
        with self._lock:
            if self.results[place] is not None:
                return
            self.results[place] = result
            self._left -= 1
            last = self._left == 0
        if last:
            self._wake()

    def _wake(self) -> None:
        def wake() -> None:
            if not self.finished.done():
                self.finished.set_result(None)

        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(wake)


class Computing(Protocol):
    """What computes parts."""

    def compute(self, parts: "Sequence[Part]") -> None:
        """Answer each of them."""

    def drop(self, parts: "Sequence[Part]") -> "list[Part]":
        """Forget parts that nobody waits for. Returns those that somebody has joined meanwhile."""


@dataclass(eq=False, slots=True)
class Part:
    """One content on its way, and the places of the requests that wait for it.

    group     whose part it is
    scorer    what computes it, with the store as it was when the position was found
    position  in that store; -1 if it must be computed
    wanted    names of the RUNs whose outputs are asked for
    length    rows that it takes in a batch; of a miss known once it is `prepared`
    taken     whether its batch has begun, so that nothing can be added to what is wanted
    """

    group: Computing
    scorer: Scorer
    sample: Sample
    key: bytes
    digest: bytes
    position: int
    wanted: set[str]
    waiting: list[tuple[Job, int]]
    length: int = 0
    tokens: int = 0
    cut_off: bool = False
    prepared: Prepared | None = None
    taken: bool = False

    @property
    def content(self) -> bytes:
        """Key and digest: what the sample is known by."""
        return self.key + self.digest

    @property
    def gone(self) -> bool:
        """Whether nobody waits for it any more."""
        return all(job.gone for job, _ in self.waiting)

    @property
    def cost(self) -> int:
        """Tokens of a batch's budget."""
        return max(1, self.length * self.scorer.preprocessor.row_cost)

    def finish(self, result: Found | RecycleError) -> None:
        """Tell all who wait."""
        for job, place in self.waiting:
            job.put(place, result)


@dataclass
class Memory:
    """The outputs that were asked for last, by content, in at most `limit` bytes."""

    limit: int
    used: int = 0
    _held: "OrderedDict[bytes, Found]" = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, content: bytes, wanted: Collection[str]) -> Found | None:
        """What is held of a content, if that is all that is wanted."""
        with self._lock:
            found = self._held.get(content)
            if found is None or not all(name in found.outputs for name in wanted):
                return None
            self._held.move_to_end(content)
            return found

    def put(self, content: bytes, found: Found) -> None:
        """Hold it; those that were not asked for longest go."""
        with self._lock:
            if (before := self._held.pop(content, None)) is not None:
                self.used -= _size(before)
                found = Found({**before.outputs, **found.outputs}, found.tokens, found.cut_off)
            if _size(found) > self.limit:
                return
            self._held[content] = found
            self.used += _size(found)
            while self.used > self.limit:
                self.used -= _size(self._held.popitem(last=False)[1])


def _size(found: Found) -> int:
    return _ENTRY + sum(one.numel() * one.element_size() for one in found.outputs.values())
