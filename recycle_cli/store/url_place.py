"""The base of places behind a URL, whose files are fetched slice by slice, through the cache if there is one."""

from typing import Self

import numpy as np
import numpy.typing as npt

from recycle_cli.errors import DamageError
from recycle_cli.store.cache import cache_from_environment
from recycle_cli.store.chunked import Bytes


class UrlPlace:
    """A place behind a URL. A subclass fetches: `size_of` a file and `part` of it."""

    is_local = False

    def __init__(self, url: str, *, cached: bool = True) -> None:
        self.url = url.rstrip("/")
        self._cache = cache_from_environment() if cached else None

    def uncached(self) -> Self:
        """This place, read without the cache."""
        return self if self._cache is None else type(self)(self.url, cached=False)

    def where(self, name: str) -> str:
        return f"{self.url}/{name}" if name else self.url

    def size_of(self, name: str) -> int:
        """Bytes of a file. Raises DamageError if there is none."""
        raise NotImplementedError

    def part(self, name: str, start: int, stop: int) -> bytes:
        """Bytes `start` to `stop` of a file, or fewer if it has no more."""
        raise NotImplementedError

    def whole(self, name: str, size: int) -> npt.NDArray[np.uint8]:
        return np.frombuffer(self.ranged(name, size)[0:size], np.uint8)

    def ranged(self, name: str, size: int) -> Bytes:
        """Bytes that are fetched slice by slice. Raises DamageError if the file has another size."""
        found = self.size_of(name)
        if found != size:
            raise DamageError(f"{self.where(name)}: {found} bytes, {size} were sealed; run `recycle store verify`")
        fetched = FetchedBytes(self, name, size)
        return fetched if self._cache is None else self._cache.over(fetched, self.where(name))


class FetchedBytes:
    """A file of known size behind a URL, fetched slice by slice."""

    def __init__(self, place: UrlPlace, name: str, size: int) -> None:
        self._place, self._name, self._size = place, name, size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, span: slice) -> bytes:
        if span.start >= span.stop:
            return b""
        data = self._place.part(self._name, span.start, span.stop)
        if len(data) != span.stop - span.start:
            raise DamageError(f"{self._place.where(self._name)}: shorter than it was; run `recycle store verify`")
        return data
