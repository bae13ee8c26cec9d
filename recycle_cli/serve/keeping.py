"""Write-back: the rows of misses are sealed in the background, and the store is kept within its bytes."""

import queue
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from time import monotonic

import numpy as np

from recycle_cli.batches import Indices
from recycle_cli.errors import RecycleError
from recycle_cli.keys import Bytes16, contents_of
from recycle_cli.store import EncodedRows, Origins, SegmentWriter, Store, evict

_WAITING_BYTES = 64 << 20
"""Rows that wait to be written at most; then the thread that computes waits."""

_OVERHEAD = 160
"""Bytes of a sample beside its rows: key, digest, offset, its entry in the index, and some metadata."""

_SHARE = 8
"""A segment takes at most this part of what the store may take, so that little goes when one must."""


@dataclass(frozen=True)
class _Rows:
    keys: Bytes16
    digests: Bytes16
    lengths: Indices
    rows: Mapping[str, EncodedRows]
    asked: float

    @property
    def size(self) -> int:
        return sum(one.nbytes for one in self.rows.values()) + len(self.keys) * _OVERHEAD

    @property
    def contents(self) -> list[bytes]:
        return contents_of(self.keys, self.digests)


class Keeping:
    """Appends rows to a store in a thread of its own. `close` seals what is left.

    sealed   called after segments came or went, with the contents that no longer wait: sealed, or not kept
    seconds  a segment is sealed at this age at the latest, so that a crash loses no more
    most     bytes that the store may take; then the segments that were used least recently are removed, whole
    """

    def __init__(
        self,
        store: Store,
        origins: Origins,
        segment_bytes: int,
        seconds: float,
        most: int | None,
        sealed: Callable[[Collection[bytes]], None],
        say: Callable[[str], None],
    ) -> None:
        self._store, self._origins, self._seconds, self._most = store, origins, seconds, most
        self._segment_bytes = segment_bytes if most is None else min(segment_bytes, max(1, most // _SHARE))
        self._sealed, self._say = sealed, say
        self._queue: queue.SimpleQueue[_Rows | None] = queue.SimpleQueue()
        self._room = threading.Condition()
        self._waiting = 0
        self._used: dict[str, float] = {}
        self._drafted: list[bytes] = []
        self._drafted_bytes, self._began, self._asked = 0, 0.0, 0.0
        self._total = store.place.bytes_used()
        self.broken: str | None = None
        self._thread = threading.Thread(target=self._run, name="recycle-keeping", daemon=True)
        self._thread.start()

    def append(self, keys: Bytes16, digests: Bytes16, lengths: Indices, rows: Mapping[str, EncodedRows]) -> None:
        """Rows of samples, as `SegmentWriter.append` takes them. Waits only if very much waits to be written."""
        one = _Rows(keys, digests, np.asarray(lengths), rows, monotonic())
        with self._room:
            while self._waiting > _WAITING_BYTES and self.broken is None:
                self._room.wait(1.0)
            if self.broken is not None:
                return
            self._waiting += one.size
        self._queue.put(one)

    def touch(self, segments: list[str]) -> None:
        """These segments were read just now."""
        self._used |= dict.fromkeys(segments, monotonic())

    def close(self) -> None:
        """Seal what is left, and end the thread."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            with self._store.writer(
                codec=self._store.codec, origins=self._origins, segment_bytes=1 << 62, segment_seconds=float("inf")
            ) as writer:
                while self._next(writer):
                    pass
                self._seal(writer)
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody may wait for this thread any more
            about = "" if isinstance(error, RecycleError) else f"{type(error).__name__}: "
            self.broken = about + " ".join(str(error).split())
            self._say(f"write-back has failed, and nothing more is kept: {self.broken}")
        with self._room:
            self._room.notify_all()

    def _next(self, writer: SegmentWriter) -> bool:
        """Take what comes next, or seal at the age; False at the end."""
        left = self._began + self._seconds - monotonic() if self._drafted else None
        try:
            one = self._queue.get(timeout=None if left is None else max(0.0, left))
        except queue.Empty:
            self._seal(writer)
            return True
        if one is None:
            return False
        with self._room:
            self._waiting -= one.size
            self._room.notify_all()
        if self._most is not None and not self._makes_room(writer, one.size, self._most):
            self._sealed(one.contents)
            return True
        if not self._drafted:
            self._began = monotonic()
        writer.append(one.keys, one.digests, one.lengths, one.rows)
        self._drafted += one.contents
        self._drafted_bytes += one.size
        self._asked = one.asked
        if self._drafted_bytes >= self._segment_bytes or monotonic() - self._began >= self._seconds:
            self._seal(writer)
        return True

    def _seal(self, writer: SegmentWriter) -> None:
        if not self._drafted:
            return
        before = {segment.id for segment in self._store.segments}
        writer.seal()
        self._store.refresh()
        self._used |= {segment.id: self._asked for segment in self._store.segments if segment.id not in before}
        self._total = self._store.place.bytes_used()
        self._sealed(self._drafted)
        self._drafted, self._drafted_bytes = [], 0

    def _makes_room(self, writer: SegmentWriter, coming: int, most: int) -> bool:
        """Whether what comes fits within the store's bytes, after segments had to go; a file system's own share of a
        segment is left free."""
        limit = most - (64 << 10)
        if self._total + self._drafted_bytes + coming <= limit:
            return True
        self._seal(writer)
        gone: list[tuple[str, int]] = []
        every = sorted(self._store.segments, key=lambda one: (self._used.get(one.id, 0.0), one.id))
        while every and self._total - sum(size for _, size in gone) + coming > limit:
            oldest = every.pop(0)
            gone.append((oldest.id, oldest.summary.bytes))
        if self._total - sum(size for _, size in gone) + coming > limit:
            self._say(f"{coming:,} bytes of rows are not kept: --max-disk {most} has no room for them")
            return False
        evict(self._store, [name for name, _ in gone])
        self._say(
            f"--max-disk {most}: {len(gone)} segments with {sum(size for _, size in gone):,} bytes, used least "
            "recently, are removed"
        )
        for name, _ in gone:
            self._used.pop(name, None)
        self._store.refresh()
        self._total = self._store.place.bytes_used()
        self._sealed([])
        return True
