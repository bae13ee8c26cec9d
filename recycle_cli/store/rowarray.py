"""Write a row array as one shard: inner chunks in order, plain or compressed, then the shard's index."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from recycle_cli.store.codecs import compress
from recycle_cli.store.dtypes import Array
from recycle_cli.store.files import HashedFile, Mark
from recycle_cli.store.layout import ArraySpec


@dataclass(frozen=True, slots=True)
class End:
    """An earlier end of a row array, to rewind to."""

    rows: int
    file: Mark
    chunks: int
    pending: Array


class RowArray:
    """Writes rows (n, *shape) to one file in `folder`. Errors of the operating system are raised as they are.

    With `even`, `finish` divides the rows of an uncompressed array evenly into chunks, so that almost nothing is
    padding. Otherwise chunks have the size in the spec, as those of a compressed array always do.
    """

    def __init__(self, folder: Path, spec: ArraySpec, *, even: bool) -> None:
        assert spec.chunk_rows is not None, "row arrays are chunked"
        self.rows = 0
        self._spec = spec
        self._chunk_rows = spec.chunk_rows
        self._even = even
        self._sizes: list[int] = []
        self._pending = np.empty(spec.shape, spec.dtype)
        folder.mkdir(parents=True)
        self._file = HashedFile(folder / spec.chunk_key)

    @property
    def bytes(self) -> int:
        return self._file.bytes + self._pending.nbytes

    def write(self, rows: Array) -> None:
        """Append rows of the spec's dtype and shape."""
        assert rows.shape[1:] == self._spec.shape[1:], f"rows of {rows.shape[1:]}, here are {self._spec.shape[1:]}"
        assert rows.dtype == self._spec.dtype, f"rows of {rows.dtype}, here are {self._spec.dtype}"
        if self._spec.compressor is not None:
            self._write_chunks(rows)
        elif rows.size:
            self._file.write(np.ascontiguousarray(rows))
        self.rows += len(rows)

    def mark(self) -> End:
        """Remember the current end, to rewind to."""
        return End(self.rows, self._file.mark(), len(self._sizes), self._pending)

    def rewind(self, end: End) -> None:
        """Undo what was written since `mark` returned this end."""
        self.rows, self._pending = end.rows, end.pending
        del self._sizes[end.chunks :]
        self._file.rewind(end.file)

    def finish(self) -> tuple[ArraySpec, dict[str, Any]]:
        """Complete the shard. Returns the array's spec and its file's record."""
        if self.rows:
            chunks = -(-self.rows // self._chunk_rows)
            self._chunk_rows = -(-self.rows // chunks) if self._even or chunks == 1 else self._chunk_rows
        spec = replace(self._spec, shape=(self.rows, *self._spec.shape[1:]), chunk_rows=self._chunk_rows)
        padding = spec.chunks * self._chunk_rows - self.rows
        if padding or len(self._pending):
            self.write(np.zeros((padding, *spec.shape[1:]), spec.dtype))
        if spec.chunks:
            sizes = self._sizes or [self._chunk_rows * spec.row_bytes] * spec.chunks
            self._file.write(shard_index(sizes))
        return spec, self._file.close()

    def abandon(self) -> None:
        """Close the file without completing the shard."""
        self._file.abandon()

    def _write_chunks(self, rows: Array) -> None:
        assert self._spec.compressor is not None, "only compressed rows wait for a whole chunk"
        waiting = np.concatenate([self._pending, rows])
        whole = len(waiting) // self._chunk_rows * self._chunk_rows
        for start in range(0, whole, self._chunk_rows):
            frame = compress(waiting[start : start + self._chunk_rows], self._spec.compressor)
            self._file.write(frame)
            self._sizes.append(len(frame))
        self._pending = waiting[whole:].copy()  # a copy, so that the array which a mark holds does not change


def shard_index(sizes: list[int]) -> bytes:
    """Zarr's shard index of chunks that lie in order: (offset, size) of each as uint64, then the CRC-32C of that."""
    ends = np.cumsum(np.asarray(sizes, "<u8"))
    entries = np.stack([ends - np.asarray(sizes, "<u8"), np.asarray(sizes, "<u8")], axis=1).astype("<u8").tobytes()
    return entries + google_crc32c.value(entries).to_bytes(4, "little")
