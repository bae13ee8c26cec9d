"""A segment being written: its arrays grow in a scratch folder until it is sealed or discarded."""

import math
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from recycle_cli.disk import sync_tree
from recycle_cli.keys import KEY_BYTES, Bytes16
from recycle_cli.recipe import has_scales
from recycle_cli.store.codecs import compressor
from recycle_cli.store.dtypes import Array, EncodedRows, numpy_dtype
from recycle_cli.store.files import write_file
from recycle_cli.store.layout import (
    DOCUMENT,
    FORMAT_VERSION,
    ArraySpec,
    array_document,
    dumps,
    group_document,
    rows_per_chunk,
    segment_document,
)
from recycle_cli.store.origins import FIELD, Origins
from recycle_cli.store.rowarray import RowArray
from recycle_cli.store.segment import DIGESTS, KEYS, OFFSETS, scales_name, values_name


class Draft:
    """A segment being written in `folder`. Errors of the operating system are raised as they are."""

    def __init__(self, folder: Path, dtype: str, codec: str, rows: Mapping[str, EncodedRows]) -> None:
        self.folder = folder
        self.samples = 0
        self._began = time.monotonic()
        self._keys: list[Bytes16] = []
        self._digests: list[Bytes16] = []
        self._lengths: list[Array] = []
        folder.mkdir()
        even = codec == "none"
        self._rows = {
            name: RowArray(folder / name, spec, even=even) for name, spec in _row_specs(rows, dtype, codec).items()
        }

    @property
    def age(self) -> float:
        """Seconds since the first sample."""
        return time.monotonic() - self._began

    @property
    def bytes(self) -> int:
        """Bytes of the rows so far."""
        return sum(array.bytes for array in self._rows.values())

    def append(self, keys: Bytes16, digests: Bytes16, lengths: Array, rows: Mapping[str, EncodedRows]) -> None:
        """Add whole samples. If that fails, the draft stays as it was."""
        arrays = _arrays_of(rows)
        _check(keys, digests, lengths, arrays.values())
        marks = {name: array.mark() for name, array in self._rows.items()}
        try:
            for name, array in arrays.items():
                self._rows[name].write(array)
        except BaseException:
            for name, mark in marks.items():
                self._rows[name].rewind(mark)
            raise
        self._keys.append(np.array(keys))
        self._digests.append(np.array(digests))
        self._lengths.append(np.array(lengths, np.int64))
        self.samples += len(keys)

    def finish(self, fingerprint: str, origins: Origins) -> None:
        """Complete all files, write the group document last, and sync everything to the disk."""
        offsets = np.concatenate([[0], np.cumsum(np.concatenate(self._lengths))]).astype("<i8")
        specs: dict[str, ArraySpec] = {}
        files: dict[str, dict[str, Any]] = {}
        for name, row_array in self._rows.items():
            specs[name], files[f"{name}/{specs[name].chunk_key}"] = row_array.finish()
        for name, array in self._sample_arrays(offsets).items():
            specs[name] = ArraySpec(array.shape, array.dtype.str, dimensions=_DIMENSIONS[name])
            (self.folder / name).mkdir()
            files[f"{name}/{specs[name].chunk_key}"] = write_file(self.folder / name / specs[name].chunk_key, array)
        documents = {name: group_document() for name in _groups(specs)}
        documents |= {name: array_document(spec) for name, spec in specs.items()}
        for name, document in documents.items():
            files[f"{name}/{DOCUMENT}"] = write_file(self.folder / name / DOCUMENT, dumps(document))
        record = {
            "version": FORMAT_VERSION,
            "fingerprint": fingerprint,
            "samples": self.samples,
            "rows": int(offsets[-1]),
            "bytes": sum(file["bytes"] for file in files.values()),
            "files": files,
            FIELD: sorted(origins),
        }
        write_file(self.folder / DOCUMENT, dumps(segment_document(documents, record)))
        sync_tree(self.folder)

    def discard(self) -> None:
        """Remove the draft's files, unless it was published just before. What cannot be removed is left to gc."""
        for array in self._rows.values():
            array.abandon()
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def discarded_on_failure(self) -> Iterator[None]:
        """Discard the draft if the block fails; on a full disk its space is needed."""
        try:
            yield
        except BaseException:
            self.discard()
            raise

    def _sample_arrays(self, offsets: Array) -> dict[str, Array]:
        return {KEYS: np.concatenate(self._keys), DIGESTS: np.concatenate(self._digests), OFFSETS: offsets}


_DIMENSIONS: dict[str, tuple[str | None, ...]] = {
    KEYS: ("sample", "byte"),
    DIGESTS: ("sample", "byte"),
    OFFSETS: ("boundary",),
}


def _arrays_of(rows: Mapping[str, EncodedRows]) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    for cut, encoded in rows.items():
        arrays[values_name(cut)] = encoded.values
        if encoded.scales is not None:
            arrays[scales_name(cut)] = encoded.scales
    return arrays


def _row_specs(rows: Mapping[str, EncodedRows], dtype: str, codec: str) -> dict[str, ArraySpec]:
    """Specs of the empty row arrays. Scales have the chunk boundaries of their values, since both are read together."""
    specs: dict[str, ArraySpec] = {}
    for cut, encoded in rows.items():
        assert encoded.values.dtype == numpy_dtype(dtype), f"{encoded.values.dtype} rows in a store of {dtype}"
        assert (encoded.scales is not None) == has_scales(dtype), "scales belong to int8 and int4 rows alone"
        assert (encoded.packed is not None) == (dtype == "int4"), "int4 rows are packed, and no others"
        shape = encoded.values.shape[1:]
        dimensions = ("row", *(None for _ in shape))
        stored = numpy_dtype(dtype)
        chunk_rows = rows_per_chunk(math.prod(shape) * stored.itemsize)
        how = compressor(codec, stored.itemsize)
        specs[values_name(cut)] = ArraySpec((0, *shape), stored.str, chunk_rows, how, dimensions, encoded.packed)
        if encoded.scales is not None:
            specs[scales_name(cut)] = ArraySpec((0,), "<f4", chunk_rows, dimensions=("row",))
    return specs


def _check(keys: Bytes16, digests: Bytes16, lengths: Array, arrays: Iterable[Array]) -> None:
    assert keys.shape == digests.shape == (len(lengths), KEY_BYTES), f"{keys.shape}, {digests.shape}, {len(lengths)}"
    total = int(np.sum(lengths))
    assert not len(lengths) or int(np.min(lengths)) >= 0, "a negative length"
    assert all(len(array) == total for array in arrays), f"lengths sum to {total}, rows are {[*map(len, arrays)]}"


def _groups(names: Iterable[str]) -> list[str]:
    """Folders above the arrays, parents before children."""
    parents = {parent for name in names for parent in Path(name).parents if parent != Path()}
    return sorted(parent.as_posix() for parent in parents)
