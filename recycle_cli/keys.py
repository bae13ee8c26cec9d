"""Samples and their content keys: xxh3_128 of the framed fields finds a sample, and SHA-256/128 confirms it."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xxhash

KEY_BYTES = 16

Bytes16 = npt.NDArray[np.uint8]
"""An array of shape (n, 16) uint8, with one key or digest a row."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The input that is hashed, stored and given to the model. The key covers the raw `fields`, but not the `id`."""

    id: str
    fields: Mapping[str, str | bytes]


def frame(fields: Mapping[str, str | bytes]) -> bytes:
    """Serialise fields, sorted by name, so that two different records never give the same bytes.

    Each field is: the UTF-8 name's length and the content's length (uint64, little-endian each), a type byte
    (`t` text, `b` bytes), the name, the content.
    """
    parts: list[bytes] = []
    for name in sorted(fields):
        value = fields[name]
        content = value.encode("utf-8") if isinstance(value, str) else value
        label = name.encode("utf-8")
        parts += [
            len(label).to_bytes(8, "little"),
            len(content).to_bytes(8, "little"),
            b"t" if isinstance(value, str) else b"b",
            label,
            content,
        ]
    return b"".join(parts)


def keys_of(samples: Sequence[Sample]) -> tuple[Bytes16, Bytes16]:
    """Keys and digests of the samples: two arrays (n, 16) uint8, in the byte order in which the hashes print."""
    framed = [frame(sample.fields) for sample in samples]
    keys = b"".join(xxhash.xxh3_128_digest(content) for content in framed)
    digests = b"".join(hashlib.sha256(content).digest()[:KEY_BYTES] for content in framed)
    return _rows(keys), _rows(digests)


def contents_of(keys: Bytes16, digests: Bytes16) -> list[bytes]:
    """What each sample is known by: its key and digest, one after the other."""
    return [key.tobytes() + digest.tobytes() for key, digest in zip(keys, digests, strict=True)]


def _rows(joined: bytes) -> Bytes16:
    return np.frombuffer(joined, dtype=np.uint8).reshape(-1, KEY_BYTES)
