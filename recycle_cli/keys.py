"""Samples and their content keys: xxh3_128 of framed fields to find a row, SHA-256/128 beside it to trust the find."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xxhash

KEY_BYTES = 16

Bytes16 = npt.NDArray[np.uint8]
"""An array of shape (n, 16): one key or one digest a row."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What is hashed, stored and given to the model. `fields` is the raw content that the key covers; `id` is not."""

    id: str
    fields: Mapping[str, str | bytes]


def frame(fields: Mapping[str, str | bytes]) -> bytes:
    """Serialise fields so that two different records never give the same bytes: (name, length, content), by name.

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
    """Keys and digests of the samples: two arrays of shape (n, 16) uint8, big-endian as the hashes print."""
    framed = [frame(sample.fields) for sample in samples]
    keys = b"".join(xxhash.xxh3_128_digest(content) for content in framed)
    digests = b"".join(hashlib.sha256(content).digest()[:KEY_BYTES] for content in framed)
    return _rows(keys), _rows(digests)


def _rows(joined: bytes) -> Bytes16:
    return np.frombuffer(joined, dtype=np.uint8).reshape(-1, KEY_BYTES)
