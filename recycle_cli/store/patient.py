"""Read a place with patience: what fails is tried again, and the error that is left names the file that failed."""

import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from recycle_cli.errors import GoneError, StorageError, StoreError, UnreadError
from recycle_cli.store.chunked import Bytes
from recycle_cli.store.layout import SEGMENTS
from recycle_cli.store.place import ReadablePlace

PAUSES = (0.1, 0.6)
"""Seconds before a failed read is tried again, and again."""

HOPELESS = 8
"""After so many reads in a row that failed to the last, each further one is tried once."""

PATIENCE_SECONDS = 120.0
"""Reading is given up when only failures have come for so long, as from a server that is gone."""

T = TypeVar("T")


class ReadError(Exception):
    """A file that could not be read. `cause` is a StorageError, which says nothing about its content, or damage."""

    def __init__(self, file: str, cause: StoreError) -> None:
        super().__init__(str(cause))
        self.file, self.cause = file, cause

    @property
    def is_damage(self) -> bool:
        """Whether the file is at fault, and not the disk, the network or a permission."""
        return not isinstance(self.cause, StorageError)


class PatientPlace:
    """Reads from `place`, several times if need be. Raises ReadError instead of its errors except GoneError, and
    UnreadError if only failures have come for PATIENCE_SECONDS."""

    def __init__(self, place: ReadablePlace) -> None:
        self._place = place
        self.is_local = place.is_local
        self._failures, self._lost_seconds = 0, 0.0

    def where(self, name: str) -> str:
        return self._place.where(name)

    def is_store(self) -> bool:
        return self.attempt("zarr.json", self._place.is_store)

    def has_begun(self) -> bool:
        return self.attempt(SEGMENTS, self._place.has_begun)

    def document(self, name: str) -> bytes:
        return self.attempt(name, lambda: self._place.document(name))

    def whole(self, name: str, size: int) -> npt.NDArray[np.uint8]:
        return self.attempt(name, lambda: self._place.whole(name, size))

    def ranged(self, name: str, size: int) -> Bytes:
        return _PatientBytes(self, name, self.attempt(name, lambda: self._place.ranged(name, size)))

    def segment_names(self) -> list[str]:
        return self.attempt(SEGMENTS, self._place.segment_names)

    def is_segment(self, name: str) -> bool:
        return self.attempt(f"{SEGMENTS}/{name}", lambda: self._place.is_segment(name))

    def listing(self, segment: str) -> Mapping[str, int]:
        return self.attempt(f"{SEGMENTS}/{segment}", lambda: self._place.listing(segment))

    def foreign(self) -> list[str]:
        return self.attempt(SEGMENTS, self._place.foreign)

    def attempt(self, name: str, read: Callable[[], T]) -> T:
        """Call `read` until it succeeds, with a pause before each further attempt."""
        pauses = list(PAUSES) if self._failures < HOPELESS else []
        began = time.monotonic()
        while True:
            try:
                found = read()
            except GoneError:
                raise
            except StorageError as error:
                if pauses:
                    time.sleep(pauses.pop(0))
                    continue
                self._lost_seconds += time.monotonic() - began
                self._failures += 1
                if self._lost_seconds > PATIENCE_SECONDS:
                    raise UnreadError(f"{error}; nothing else could be read either, run again later") from error
                raise ReadError(name, error) from error
            except StoreError as error:
                raise ReadError(name, error) from error
            self._failures, self._lost_seconds = 0, 0.0
            return found


class _PatientBytes:
    def __init__(self, place: PatientPlace, name: str, data: Bytes) -> None:
        self._place, self._name, self._data = place, name, data

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, span: slice) -> bytes:
        return self._place.attempt(self._name, lambda: bytes(self._data[span]))
