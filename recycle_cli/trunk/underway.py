"""Remember the samples that are being computed, so that no content is computed twice."""

import threading
from collections.abc import Collection, Sequence

import numpy as np

from recycle_cli.errors import GoneError
from recycle_cli.keys import KEY_BYTES, Bytes16, Sample, contents_of
from recycle_cli.store import Store
from recycle_cli.trunk.stream import Indices, Window

SEEN_LIMIT = 100_000
"""Samples to remember (some 10 MB) before those that the store has sealed meanwhile are forgotten."""


class Underway:
    """The contents that are being computed, beside those that the store has sealed."""

    def __init__(self, store: Store) -> None:
        self.contents: set[bytes] = set()
        self._store, self._limit = store, SEEN_LIMIT
        self._lock = threading.Lock()

    def lookup(self, keys: Bytes16, digests: Bytes16) -> Indices:
        """As `Store.lookup`, but goes on if `gc` or `verify --repair` removes segments meanwhile."""
        while True:
            try:
                return self._store.lookup(keys, digests)
            except GoneError:
                self._store.refresh()  # this changes positions, of which nothing here keeps any

    def first(self, window: Window) -> Indices:
        """Places of the samples that are neither stored nor being computed, each content once. Remembers them."""
        fresh, absent = [], np.flatnonzero(window.positions < 0)
        contents = contents_of(window.keys[absent], window.digests[absent])
        for place, content in zip(absent.tolist(), contents, strict=True):
            if content not in self.contents:
                self.contents.add(content)
                fresh.append(place)
        if len(self.contents) > self._limit:
            self._forget_sealed()
        return np.array(fresh, dtype=np.int64)

    def lacking(self, samples: Sequence[Sample], keys: Bytes16, digests: Bytes16) -> Indices:
        """As `first`, but looks the samples up too; another thread that calls `settle` waits meanwhile."""
        with self._lock:
            return self.first(Window(samples, keys, digests, self.lookup(keys, digests)))

    def settle(self, contents: Collection[bytes], store: Store | None = None) -> None:
        """Forget contents that have been sealed, or will not be. `store`: to look up in from now on, as it is now."""
        with self._lock:
            if store is not None:
                self._store = store
            self.contents.difference_update(contents)

    def _forget_sealed(self) -> None:
        """Drop what the store has sealed meanwhile, so that memory does not grow with the corpus."""
        self._store.refresh()
        contents = np.frombuffer(b"".join(self.contents), dtype=np.uint8).reshape(-1, 2 * KEY_BYTES)
        absent = self.lookup(contents[:, :KEY_BYTES], contents[:, KEY_BYTES:]) < 0
        self.contents.intersection_update(content.tobytes() for content in contents[absent])
        self._limit = max(SEEN_LIMIT, 2 * len(self.contents))
