"""Names and Zarr v3 documents of a store: pure functions from shapes to JSON and back, with checks when reading."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from recycle_cli.errors import DamageError
from recycle_cli.recipe import canonical_digest, canonical_json
from recycle_cli.store.codecs import is_allowed

FORMAT_VERSION = 1

DOCUMENT = "zarr.json"
SEGMENTS = "segments"
SCRATCH = "tmp"
INDEX = "index"
DAMAGED = "damaged"

DOCUMENT_LIMIT = 16 << 20
"""Largest metadata document that is read, in bytes. A document with 10,000 block checksums takes 0.2 MB."""

CHUNK_BYTES = 128 << 10
"""Target size of an inner chunk, which plain Zarr readers fetch, and compressed stores decode, as a whole."""

CHUNK_LIMIT = 1 << 30
"""Largest inner chunk that is decoded, in bytes. Blosc's own limit is 2 GiB."""

_ROW_SHAPE = "row_shape"
_INDEX_ENTRY = 16
_CRC = 4
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,199}")
_DATA_TYPES = {"|u1": "uint8", "<u2": "uint16", "|i1": "int8", "<i8": "int64", "<u8": "uint64"} | {
    "<f2": "float16",
    "<f4": "float32",
}
_NUMPY_TYPES = {name: code for code, name in _DATA_TYPES.items()}
_LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}
_SHARD_INDEX = [_LITTLE, {"name": "crc32c"}]
_KEY_ENCODING = {"name": "default", "configuration": {"separator": "."}}


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """The shape and layout of one array of a segment. `chunk_rows` is None for an array stored as one plain chunk.

    `packed` is the shape of a row whose numbers are packed into bytes, None for rows that are stored as they are.
    A row array is one shard with inner chunks of `chunk_rows` rows, in order. An uncompressed one is therefore plain
    bytes from the start of its file and can be mapped; the padding of the last chunk and the shard's index follow.
    """

    shape: tuple[int, ...]
    dtype: str
    chunk_rows: int | None = None
    compressor: Mapping[str, Any] | None = None
    dimensions: tuple[str | None, ...] = ()
    packed: tuple[int, ...] | None = None

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape of a row before it was packed."""
        return self.shape[1:] if self.packed is None else self.packed

    @property
    def row_bytes(self) -> int:
        return math.prod(self.shape[1:]) * np.dtype(self.dtype).itemsize

    @property
    def data_bytes(self) -> int:
        return self.shape[0] * self.row_bytes

    @property
    def chunks(self) -> int:
        return -(-self.shape[0] // self.chunk_rows) if self.chunk_rows else 1

    @property
    def index_bytes(self) -> int:
        return self.chunks * _INDEX_ENTRY + _CRC if self.chunk_rows else 0

    @property
    def file_bytes(self) -> int | None:
        """Size of the array's one file, or None if compression decides it. The file of an empty array is empty."""
        if self.compressor is not None:
            return None
        if not self.shape[0]:
            return 0
        padded = self.chunks * (self.chunk_rows or self.shape[0])
        return padded * self.row_bytes + self.index_bytes

    @property
    def chunk_key(self) -> str:
        return ".".join(["c", *("0" for _ in self.shape)])


def is_name(name: str) -> bool:
    """Whether `name` may be the folder of a cut or segment: no separators, nothing hidden, no way out of the store."""
    return bool(_NAME.fullmatch(name)) and not name.startswith("__")


def rows_per_chunk(row_bytes: int) -> int:
    """The largest power of two of rows that fit CHUNK_BYTES, at least one."""
    return 1 << max(0, (CHUNK_BYTES // max(row_bytes, 1)).bit_length() - 1)


def group_document(attributes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Make the zarr.json of a group."""
    return {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes or {})}


def array_document(spec: ArraySpec) -> dict[str, Any]:
    """Make the zarr.json of an array. An empty array has chunks of one row, none of which is stored."""
    if spec.chunk_rows is None:
        chunk = (max(spec.shape[0], 1), *spec.shape[1:])
        codecs: list[Mapping[str, Any]] = [_LITTLE]
    else:
        inner = (spec.chunk_rows, *spec.shape[1:])
        chunk = (max(spec.chunks, 1) * spec.chunk_rows, *spec.shape[1:])
        codecs = [_sharding(inner, spec.compressor)]
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(spec.shape),
        "data_type": _DATA_TYPES[spec.dtype],
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunk)}},
        "chunk_key_encoding": _KEY_ENCODING,
        "fill_value": 0.0 if "f" in spec.dtype else 0,
        "codecs": codecs,
        "dimension_names": list(spec.dimensions),
        "attributes": {} if spec.packed is None else {_ROW_SHAPE: list(spec.packed)},
    }


def segment_document(documents: Mapping[str, Mapping[str, Any]], record: Mapping[str, Any]) -> dict[str, Any]:
    """Make the sealed zarr.json of a segment, with its record and the metadata of all groups and arrays below."""
    consolidated = {"kind": "inline", "must_understand": False, "metadata": documents}
    return sealed({**group_document({"recycle": record}), "consolidated_metadata": consolidated})


def parse_array(document: Mapping[str, Any]) -> ArraySpec:
    """Parse an array document, which must be one that `array_document` could have written.

    Raises DamageError otherwise, for a codec that is not allowed, an absurd shape or a foreign layout alike.
    """
    try:
        spec = _read_array(document)
        written = array_document(spec)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise DamageError(f"array metadata is not of this format ({type(error).__name__}: {error})") from None
    if written != document:
        raise DamageError("array metadata is not of this format (a codec, chunk grid or key encoding differs)")
    return spec


def dumps(document: Mapping[str, Any]) -> bytes:
    """Serialise to canonical JSON."""
    return canonical_json(document).encode()


def loads(data: bytes, source: str) -> dict[str, Any]:
    """Parse a JSON object. Raises a DamageError that names `source` if the bytes are anything else."""
    if len(data) > DOCUMENT_LIMIT:
        raise DamageError(f"{source}: {len(data)} bytes of metadata, more than the {DOCUMENT_LIMIT} that are read")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DamageError(f"{source}: not JSON ({error}); run `recycle store verify`") from None
    if not isinstance(document, dict):
        raise DamageError(f"{source}: a JSON object was expected, this is {type(document).__name__}")
    return document


def sealed(document: dict[str, Any]) -> dict[str, Any]:
    """Add `attributes.recycle.seal` to a group document: xxh3_128 of its canonical JSON without the seal."""
    seal = canonical_digest(document)
    recycle = {**document["attributes"]["recycle"], "seal": seal}
    return {**document, "attributes": {**document["attributes"], "recycle": recycle}}


def unsealed(document: dict[str, Any], source: str) -> dict[str, Any]:
    """Return `attributes.recycle` of a sealed group document. Raises DamageError if the seal does not fit."""
    attributes = document.get("attributes")
    recycle = attributes.get("recycle") if isinstance(attributes, dict) else None
    if not isinstance(attributes, dict) or not isinstance(recycle, dict) or "seal" not in recycle:
        raise DamageError(f"{source}: no `attributes.recycle` with a seal; not written by recycle, or cut short")
    bare = {name: value for name, value in recycle.items() if name != "seal"}
    try:
        fits = canonical_digest({**document, "attributes": {**attributes, "recycle": bare}}) == recycle["seal"]
    except (ValueError, RecursionError):
        fits = False
    if not fits:
        raise DamageError(f"{source}: does not match its seal; run `recycle store verify --repair`")
    return bare


def _sharding(inner: tuple[int, ...], compressor: Mapping[str, Any] | None) -> dict[str, Any]:
    codecs = [_LITTLE, *([] if compressor is None else [compressor])]
    return {
        "name": "sharding_indexed",
        "configuration": {
            "chunk_shape": list(inner),
            "codecs": codecs,
            "index_codecs": _SHARD_INDEX,
            "index_location": "end",
        },
    }


def _read_array(document: Mapping[str, Any]) -> ArraySpec:
    shape = tuple(document["shape"])
    dtype = _NUMPY_TYPES[document["data_type"]]
    if not shape or not all(type(n) is int and 0 <= n < 1 << 62 for n in shape) or 0 in shape[1:]:
        raise ValueError(f"shape {list(shape)}")
    if math.prod(max(n, 1) for n in shape) * np.dtype(dtype).itemsize >= 1 << 62:
        raise ValueError(f"shape {list(shape)}")
    first = document["codecs"][0]
    chunk_rows, compressor = None, None
    if first["name"] == "sharding_indexed":
        chunk_rows = first["configuration"]["chunk_shape"][0]
        if type(chunk_rows) is not int or not 0 < chunk_rows <= (shape[0] or 1 << 31):
            raise ValueError(f"chunks of {chunk_rows} rows")
        inner = first["configuration"]["codecs"]
        compressor = inner[1] if len(inner) > 1 else None
        if compressor is not None and not is_allowed(compressor, np.dtype(dtype).itemsize):
            raise ValueError(f"codec {compressor!r:.80}, which is not on the list of those allowed")
        if compressor is not None and chunk_rows * math.prod(shape[1:]) * np.dtype(dtype).itemsize > CHUNK_LIMIT:
            raise ValueError(f"compressed chunks of {chunk_rows} rows, more than {CHUNK_LIMIT} bytes each")
    return ArraySpec(
        shape, dtype, chunk_rows, compressor, tuple(document["dimension_names"]), _packed(document["attributes"])
    )


def _packed(attributes: Mapping[str, Any]) -> tuple[int, ...] | None:
    if _ROW_SHAPE not in attributes:
        return None
    shape = tuple(attributes[_ROW_SHAPE])
    if not all(type(n) is int and 0 < n < 1 << 62 for n in shape) or math.prod(shape) >= 1 << 62:
        raise ValueError(f"{_ROW_SHAPE} {list(shape)}")
    return shape
