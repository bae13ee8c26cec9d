"""Read row arrays that cannot be mapped: find inner chunks by the shard's index and decode them on demand."""

from typing import Any, Protocol

import google_crc32c
import numpy as np

from recycle_cli.errors import DamageError
from recycle_cli.store.codecs import decompress
from recycle_cli.store.dtypes import Array
from recycle_cli.store.layout import ArraySpec


class Bytes(Protocol):
    """Bytes of a file: a mapped array, or a remote object that fetches each slice."""

    def __len__(self) -> int: ...

    def __getitem__(self, span: slice, /) -> Any: ...


class ChunkedRows:
    """Rows (n, *shape) of one shard. `rows[start:stop]` decodes the chunks it touches and caches the last one."""

    def __init__(self, data: Bytes, spec: ArraySpec, where: str) -> None:
        assert spec.chunk_rows is not None, "only shards have inner chunks"
        self.shape = spec.shape
        self.dtype = np.dtype(spec.dtype)
        self.chunk_rows = spec.chunk_rows
        self.decoded = 0
        self._data, self._spec, self._where = data, spec, where
        self._entries = _shard_entries(data, spec, where)
        self._last: tuple[int, Array] = (-1, np.empty(0))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> Array:
        start, stop, _ = rows.indices(len(self))
        if start >= stop:
            return np.empty((0, *self.shape[1:]), self.dtype)
        first, last = start // self.chunk_rows, (stop - 1) // self.chunk_rows
        if first == last:
            chunk = self._chunk(first)
            return chunk[start - first * self.chunk_rows : stop - first * self.chunk_rows]
        out = np.empty((stop - start, *self.shape[1:]), self.dtype)
        for number in range(first, last + 1):
            begin = number * self.chunk_rows
            low, high = max(start, begin), min(stop, begin + self.chunk_rows)
            out[low - start : high - start] = self._chunk(number)[low - begin : high - begin]
        return out

    def read_into(self, first: int, last: int, out: Array) -> None:
        """Decode chunks `first` to `last` (exclusive) into `out`, which has room for all their rows.

        Each chunk is decoded once; remote chunks are fetched as one range.
        """
        begin = int(self._entries[first:last, 0].min())
        end = int((self._entries[first:last, 0] + self._entries[first:last, 1]).max())
        block = memoryview(self._data[begin:end])
        for number in range(first, last):
            offset, size = self._entries[number].tolist()
            at = (number - first) * self.chunk_rows
            self._decode(block[offset - begin : offset - begin + size], out[at : at + self.chunk_rows])

    def _chunk(self, number: int) -> Array:
        last, chunk = self._last
        if last != number:
            chunk = np.empty((self.chunk_rows, *self.shape[1:]), self.dtype)
            offset, size = self._entries[number].tolist()
            self._decode(self._data[offset : offset + size], chunk)
            self._last = (number, chunk)  # one assignment, so that other threads see either the old pair or the new one
        return chunk

    def _decode(self, frame: Any, out: Array) -> None:
        self.decoded += 1
        if self._spec.compressor is None:
            out[...] = np.frombuffer(frame, self.dtype).reshape(out.shape)
        else:
            decompress(frame, out, self._where)


def _shard_entries(data: Bytes, spec: ArraySpec, where: str) -> Array:
    """Read (offset, size) of each inner chunk, int64. Raises DamageError if checksum, places or sizes do not fit."""
    body = len(data) - spec.index_bytes
    if body < 0:
        raise DamageError(f"{where}: {len(data)} bytes are too few for its index; run `recycle store verify --repair`")
    index = bytes(data[body : len(data)])
    if google_crc32c.value(index[:-4]) != int.from_bytes(index[-4:], "little"):
        raise DamageError(f"{where}: the checksum of the shard's index differs; run `recycle store verify --repair`")
    entries = np.frombuffer(index[:-4], "<u8").reshape(-1, 2)
    limit = np.uint64(body)
    if bool((entries > limit).any()) or bool((entries[:, 0] + entries[:, 1] > limit).any()):
        raise DamageError(f"{where}: a chunk lies outside of the file; run `recycle store verify --repair`")
    entries = entries.astype(np.int64)
    by_place = entries[np.argsort(entries[:, 0], kind="stable")]
    if bool((by_place[:-1].sum(axis=1) > by_place[1:, 0]).any()):
        raise DamageError(f"{where}: chunks overlap; run `recycle store verify --repair`")
    plain = spec.chunk_rows * spec.row_bytes if spec.chunk_rows else 0
    if spec.compressor is None and bool((entries[:, 1] != plain).any()):
        raise DamageError(f"{where}: a chunk is not {plain} bytes; run `recycle store verify --repair`")
    return entries
