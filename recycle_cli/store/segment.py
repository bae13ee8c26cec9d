"""Read a sealed segment: its metadata is checked, and its arrays are mapped when first used."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from recycle_cli.errors import DamageError, StoreError
from recycle_cli.keys import KEY_BYTES
from recycle_cli.recipe import has_scales, stored_shape
from recycle_cli.store.chunked import ChunkedRows
from recycle_cli.store.codecs import CodecName, codec_of
from recycle_cli.store.dtypes import Array, numpy_dtype
from recycle_cli.store.files import require_uncut
from recycle_cli.store.layout import (
    DOCUMENT,
    FORMAT_VERSION,
    SEGMENTS,
    ArraySpec,
    is_name,
    loads,
    parse_array,
    unsealed,
)
from recycle_cli.store.origins import Origins, origins_in
from recycle_cli.store.place import ReadablePlace

REQUESTS = 32
"""Segments of a bucket that are read at the same time, where little is read of many."""

Rows = Array | ChunkedRows
KEYS, DIGESTS, OFFSETS = "keys", "digests", "offsets"


@dataclass(frozen=True, slots=True)
class Summary:
    """Counts of a segment that the index keeps, so that opening a store need not open every segment."""

    id: str
    samples: int
    rows: int
    bytes: int


def values_name(cut: str) -> str:
    return f"cuts/{cut}/values"


def scales_name(cut: str) -> str:
    return f"cuts/{cut}/scales"


class Segment:
    """A sealed segment of the store at `place`. Everything is read on first use."""

    def __init__(self, place: ReadablePlace, id: str, fingerprint: str, dtype: str) -> None:
        self.place = place
        self.id = id
        self.fingerprint = fingerprint
        self.dtype = dtype
        self._values: dict[str, Rows] = {}
        self._scales: dict[str, Rows] = {}

    @cached_property
    def document(self) -> dict[str, Any]:
        """The group document with consolidated metadata. `record` checks its seal."""
        return loads(self.place.document(self.name(DOCUMENT)), self.where(DOCUMENT))

    def name(self, file: str) -> str:
        """The name of a file relative to the root of the store."""
        return f"{SEGMENTS}/{self.id}/{file}"

    def where(self, file: str = "") -> str:
        """The full path or URL of a file, or of the segment, for messages."""
        return self.place.where(self.name(file)).rstrip("/")

    @cached_property
    def record(self) -> Mapping[str, Any]:
        """`attributes.recycle` with the seal checked: {version, fingerprint, samples, rows, bytes, files, origins}."""
        record = unsealed(self.document, self.where(DOCUMENT))
        if record.get("version") != FORMAT_VERSION or record.get("fingerprint") != self.fingerprint:
            raise StoreError(
                f"{self.where()}: format {record.get('version')}, recipe {record.get('fingerprint')}; the store has "
                f"format {FORMAT_VERSION}, recipe {self.fingerprint}: take the foreign segment out of the store"
            )
        return record

    @cached_property
    def specs(self) -> dict[str, ArraySpec]:
        """The specs of all arrays by name. Raises DamageError if names, shapes or dtypes do not fit together."""
        try:
            metadata = self.document["consolidated_metadata"]["metadata"]
            arrays = {name: meta for name, meta in metadata.items() if meta["node_type"] == "array"}
        except (KeyError, TypeError, AttributeError):
            raise DamageError(f"{self.where()}: no consolidated metadata; run `recycle store verify`") from None
        summary = self.summary  # first of all, since it tells whether the document is as it was sealed
        try:
            specs = {name: parse_array(meta) for name, meta in arrays.items()}
        except DamageError as error:
            raise DamageError(f"{self.where()}: {error}") from None
        check_specs(specs, summary, self.dtype, self.where())
        return specs

    @cached_property
    def summary(self) -> Summary:
        record = self.record
        counts: list[Any] = [record.get(name) for name in ("samples", "rows", "bytes")]
        if not all(type(count) is int and 0 <= count < 1 << 62 for count in counts):
            raise DamageError(f"{self.where()}: samples, rows and bytes are {counts}")
        return Summary(self.id, *counts)

    @property
    def origins(self) -> Origins:
        """How its samples were made of records."""
        return origins_in(self.record)

    @cached_property
    def cuts(self) -> list[str]:
        return cuts_of(self.specs)

    @property
    def codec(self) -> CodecName:
        """The codec of the values."""
        return codec_of(self.specs[values_name(self.cuts[0])].compressor)

    @cached_property
    def keys(self) -> npt.NDArray[np.uint8]:
        """(samples, 16) uint8, mapped."""
        return self._whole(KEYS)

    def keys_once(self) -> npt.NDArray[np.uint8]:
        """The keys for a single use: what is not held yet is not held, or mapped, for longer. A process may have only
        so many maps, and a large store has more segments."""
        held: npt.NDArray[np.uint8] | None = self.__dict__.get(KEYS)
        return self._whole(KEYS) if held is None else held

    def fetch(self, name: str) -> None:
        """Read the document and the `keys` or `digests`. Several threads may do this for several segments at once,
        while a `cached_property` lets one thread at a time through in some versions of Python."""
        if name in self.__dict__:
            return
        if not {"document", "specs"} & self.__dict__.keys():
            self.__dict__["document"] = loads(self.place.document(self.name(DOCUMENT)), self.where(DOCUMENT))
        self.__dict__[name] = self._whole(name)

    def forget(self, name: str) -> None:
        """Free an array of the samples, which is read again when it is needed."""
        self.__dict__.pop(name, None)

    def release(self) -> None:
        """Free all maps and arrays, which are read again when they are needed."""
        for name in (KEYS, DIGESTS, "bounds", OFFSETS):
            self.forget(name)
        self._values.clear()
        self._scales.clear()

    @cached_property
    def digests(self) -> npt.NDArray[np.uint8]:
        """(samples, 16) uint8, mapped."""
        return self._whole(DIGESTS)

    @cached_property
    def offsets(self) -> npt.NDArray[np.int64]:
        """(samples + 1,) int64, in memory. Raises DamageError if they decrease or do not end at the number of rows."""
        spec = self.specs[OFFSETS]
        assert spec.file_bytes is not None, "offsets are not compressed"
        data = self.place.ranged(self.name(f"{OFFSETS}/{spec.chunk_key}"), spec.file_bytes)
        offsets: npt.NDArray[np.int64] = np.frombuffer(data[0 : spec.file_bytes], spec.dtype)
        ends = int(offsets[0]), int(offsets[-1])
        if ends != (0, self.summary.rows) or bool((offsets[1:] < offsets[:-1]).any()):
            raise DamageError(
                f"{self.where(OFFSETS)}: must rise from 0 to {self.summary.rows}; run `recycle store verify --repair`"
            )
        return offsets

    @cached_property
    def bounds(self) -> memoryview:
        """The offsets as a memoryview, in which looking up a single one is several times faster than in NumPy."""
        return self.offsets.data.cast("B").cast("q")

    def values(self, cut: str) -> Rows:
        """(rows, *stored_shape) in the stored dtype, mapped so that slices are views, or decoded chunk by chunk."""
        if cut not in self._values:
            self._values[cut] = self._row_array(values_name(cut))
        return self._values[cut]

    def scales(self, cut: str) -> Rows:
        """(rows,) float32; only int8 and int4 stores have scales."""
        if cut not in self._scales:
            self._scales[cut] = self._row_array(scales_name(cut))
        return self._scales[cut]

    def row_shape(self, cut: str) -> tuple[int, ...]:
        """The shape of a row, as it was before it was packed."""
        return self.specs[values_name(cut)].row_shape

    def require_uncut(self, name: str, array: Any) -> None:
        """Raise DamageError if the array `name` is mapped from a file that was cut short since."""
        if isinstance(array, np.ndarray):
            require_uncut(array, self.where(f"{name}/{self.specs[name].chunk_key}"))

    def chunked_values(self, cut: str) -> ChunkedRows:
        """The values, read by whole chunks and never mapped, whatever the codec."""
        return self.chunked(values_name(cut))

    def chunked(self, name: str) -> ChunkedRows:
        """A row array by its name, read by whole chunks and never mapped."""
        spec = self.specs[name]
        file = f"{name}/{spec.chunk_key}"
        return ChunkedRows(self.place.ranged(self.name(file), self._recorded_bytes(file)), spec, self.where(file))

    def _row_array(self, name: str) -> Rows:
        spec = self.specs[name]
        mapped = self.place.is_local and spec.compressor is None
        return self._whole(name) if mapped or not spec.shape[0] else self.chunked(name)

    def _recorded_bytes(self, file: str) -> int:
        try:
            size = self.record["files"][file]["bytes"]
        except (KeyError, TypeError):
            size = None
        if type(size) is not int or size < 0:
            raise DamageError(f"{self.where(file)}: {size} bytes recorded; run `recycle store verify --repair`")
        return size

    def _whole(self, name: str) -> Array:
        spec = self.specs[name]
        if not spec.shape[0]:
            return np.empty(spec.shape, spec.dtype)
        assert spec.file_bytes is not None, "compressed arrays are not read whole"
        data = self.place.whole(self.name(f"{name}/{spec.chunk_key}"), spec.file_bytes)
        return data[: spec.data_bytes].view(spec.dtype).reshape(spec.shape)


def fetch_together(segments: Sequence[Segment], name: str) -> None:
    """Read the `keys` or `digests` of segments that do not lie on a disk here, many at a time: each takes as long as
    the way to the server and back."""
    far = [segment for segment in segments if not segment.place.is_local]
    if len(far) > 1:
        with ThreadPoolExecutor(REQUESTS, thread_name_prefix="recycle-fetch") as pool:
            for _ in pool.map(lambda segment: segment.fetch(name), far):
                pass


def origins_of(segments: Iterable[Segment]) -> Origins:
    """How the samples of segments were made of records; with `?` if not all of them say it."""
    return frozenset().union(*(segment.origins for segment in segments))


def cuts_of(names: Iterable[str]) -> list[str]:
    """The cuts whose values are among the array names."""
    parts = [name.split("/") for name in names]
    return [part[1] for part in parts if len(part) == 3 and (part[0], part[2]) == ("cuts", "values")]


def check_specs(specs: Mapping[str, ArraySpec], summary: Summary, dtype: str, where: str) -> None:
    """Raise DamageError unless the arrays are exactly those of a segment with this summary."""
    bytes_type = numpy_dtype(dtype).str
    expected: dict[str, tuple[Any, ...]] = {
        KEYS: ((summary.samples, KEY_BYTES), "|u1"),
        DIGESTS: ((summary.samples, KEY_BYTES), "|u1"),
        OFFSETS: ((summary.samples + 1,), "<i8"),
    }
    for cut in cuts_of(specs):
        if not is_name(cut):
            raise DamageError(f"{where}: {cut!r} cannot be the name of a cut")
        shape = specs[values_name(cut)].row_shape
        packed = (shape,) if dtype == "int4" else ()
        expected[values_name(cut)] = ((summary.rows, *stored_shape(shape, dtype)), bytes_type, *packed)
        if has_scales(dtype):
            expected[scales_name(cut)] = ((summary.rows,), "<f4")
    found = {
        name: (spec.shape, spec.dtype, *(() if spec.packed is None else (spec.packed,))) for name, spec in specs.items()
    }
    for name in sorted(expected.keys() | found.keys()):
        if found.get(name) != expected.get(name):
            raise DamageError(f"{where}/{name}: {found.get(name)} found, {expected.get(name)} expected")
