"""One row array being written: whole inner chunks in order, the shard's index last."""

from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from recycle_cli.store.dtypes import Array
from recycle_cli.store.files import HashedFile, Mark
from recycle_cli.store.layout import ArraySpec


class RowArray:
    """Rows (n, *shape) on their way into one file in `folder`. Errors of the operating system come through."""

    def __init__(self, folder: Path, spec: ArraySpec) -> None:
        assert spec.chunk_rows is not None, "row arrays are chunked"
        self._empty = spec
        self._chunk_rows = spec.chunk_rows
        self.rows = 0
        folder.mkdir(parents=True)
        self._file = HashedFile(folder / spec.chunk_key)

    @property
    def bytes(self) -> int:
        return self._file.bytes

    def write(self, rows: Array) -> None:
        """Append rows of the spec's dtype and shape."""
        assert rows.shape[1:] == self._empty.shape[1:], f"rows of {rows.shape[1:]}, here are {self._empty.shape[1:]}"
        assert rows.dtype == self._empty.dtype, f"rows of {rows.dtype}, here are {self._empty.dtype}"
        if rows.size:
            self._file.write(np.ascontiguousarray(rows))
        self.rows += len(rows)

    def mark(self) -> tuple[int, Mark]:
        return self.rows, self._file.mark()

    def rewind(self, mark: tuple[int, Mark]) -> None:
        """Forget what was written since the mark."""
        self.rows, position = mark
        self._file.rewind(position)

    def finish(self) -> tuple[ArraySpec, dict[str, Any]]:
        """Complete the shard and sync it: the array's spec and its file's record."""
        spec = self._spec()
        if spec.chunks:
            padding = spec.chunks * self._chunk_rows * spec.row_bytes - spec.data_bytes
            if padding:
                self._file.write(bytes(padding))
            self._file.write(shard_index(spec))
        return spec, self._file.close()

    def abandon(self) -> None:
        self._file.abandon()

    def _spec(self) -> ArraySpec:
        empty = self._empty
        shape = (self.rows, *empty.shape[1:])
        return ArraySpec(shape, empty.dtype, empty.chunk_rows, empty.compressor, empty.dimensions)


def shard_index(spec: ArraySpec) -> bytes:
    """(offset, size) of each inner chunk as uint64, then their CRC-32C: Zarr's `sharding_indexed`, index at the end."""
    assert spec.chunk_rows is not None, "only shards have an index"
    size = spec.chunk_rows * spec.row_bytes
    entries = np.empty((spec.chunks, 2), "<u8")
    entries[:, 0] = np.arange(spec.chunks, dtype="<u8") * np.uint64(size)
    entries[:, 1] = size
    index = entries.tobytes()
    return index + google_crc32c.value(index).to_bytes(4, "little")
