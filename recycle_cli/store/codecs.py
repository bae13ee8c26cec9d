"""Compress inner chunks with Zarr's `blosc` codec. Only listed settings are decoded, and every header is checked."""

import importlib
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from recycle_cli.errors import DamageError
from recycle_cli.store.dtypes import Array

CodecName = Literal["none", "lz4", "zstd"]

CODECS: tuple[CodecName, ...] = ("none", "lz4", "zstd")

WORTH_SAVING = 0.20
"""`auto` compresses if that saves at least this share of the bytes. Plain bytes can be mapped, which reads several
times faster, and that is worth more than a fifth of the disk space."""

WORTH_ZSTD = 0.10
"""`auto` prefers zstd if it saves at least this share more than lz4, which decodes faster."""

_LEVELS = {"lz4": 5, "zstd": 3}
_SHUFFLES = ("noshuffle", "shuffle", "bitshuffle")
_HEADER = struct.Struct("<BBBBIII")
_TRIAL_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Choice:
    """A codec and the reason for choosing it, such as the measured savings."""

    codec: str
    reason: str


def compressor(codec: str, itemsize: int) -> dict[str, Any] | None:
    """Return the Zarr codec document for a codec's name, or None for `none`."""
    if codec == "none":
        return None
    configuration = {
        "typesize": itemsize,
        "cname": codec,
        "clevel": _LEVELS[codec],
        "shuffle": "bitshuffle",
        "blocksize": 0,
    }
    return {"name": "blosc", "configuration": configuration}


def codec_of(document: Mapping[str, Any] | None) -> CodecName:
    """Return a codec's name from its Zarr document; the inverse of `compressor`."""
    name = "none" if document is None else document["configuration"]["cname"]
    return CODECS[CODECS.index(name)]


def is_allowed(document: Any, itemsize: int) -> bool:
    """Whether this program decodes a codec document: it must be blosc with lz4 or zstd inside."""
    try:
        configuration = dict(document["configuration"])
        fits = (
            set(document) == {"name", "configuration"}
            and document["name"] == "blosc"
            and set(configuration) == {"typesize", "cname", "clevel", "shuffle", "blocksize"}
            and configuration["cname"] in _LEVELS
            and configuration["shuffle"] in _SHUFFLES
        )
        numbers = [configuration["typesize"], configuration["clevel"], configuration["blocksize"]]
    except (KeyError, TypeError, ValueError):
        return False
    ranges = ((itemsize, itemsize), (0, 9), (0, 1 << 30))
    return fits and all(type(n) is int and low <= n <= high for n, (low, high) in zip(numbers, ranges, strict=True))


def compress(chunk: Array, document: Mapping[str, Any]) -> bytes:
    """Compress one inner chunk to a Blosc frame."""
    options = document["configuration"]
    shuffle = _SHUFFLES.index(options["shuffle"])
    return bytes(
        _blosc().compress(
            np.ascontiguousarray(chunk), options["cname"].encode(), options["clevel"], shuffle, options["blocksize"]
        )
    )


def decompress(frame: Any, out: Array, where: str) -> None:
    """Decode a Blosc frame into the contiguous array `out`, which it must fill exactly.

    The header is checked first, since the decoder trusts the sizes in it. Raises DamageError if they do not fit.
    """
    view = memoryview(frame).cast("B")
    if len(view) < _HEADER.size:
        raise DamageError(f"{where}: a chunk of {len(view)} bytes is no Blosc frame; run `recycle store verify`")
    version, _, _, _, size, block, total = _HEADER.unpack_from(view)
    if size != out.nbytes or total != len(view) or version > 2 or block > max(size, 1):
        raise DamageError(
            f"{where}: a chunk of {total} bytes that decodes to {size}, {len(view)} and {out.nbytes} were sealed; "
            f"run `recycle store verify --repair`"
        )
    try:
        _blosc().decompress(view, out)
    except (RuntimeError, ValueError) as error:
        raise DamageError(f"{where}: a chunk does not decode ({error}); run `recycle store verify --repair`") from None


def choose(rows: Array) -> Choice:
    """Compress a sample of the rows with lz4 and zstd, and choose none, lz4 or zstd by what they save."""
    trial = rows.reshape(-1)[: _TRIAL_BYTES // rows.itemsize]
    if not trial.size:
        return Choice("none", "no rows to measure")
    saved, speed = {}, {}
    for codec in ("lz4", "zstd"):
        document = compressor(codec, trial.itemsize)
        assert document is not None, "lz4 and zstd have a codec document"
        frame = compress(trial, document)
        speed[codec] = trial.nbytes / min(_decoding(frame, np.empty_like(trial)) for _ in range(3))
        saved[codec] = 1 - len(frame) / trial.nbytes
    if max(saved.values()) < WORTH_SAVING:
        codec = "none"
    else:
        codec = "zstd" if saved["zstd"] >= saved["lz4"] + WORTH_ZSTD else "lz4"
    measured = ", ".join(f"{name} saves {saved[name]:.0%} and decodes {speed[name] / 1e9:.1f} GB/s" for name in saved)
    return Choice(codec, f"{measured}; worth it from {WORTH_SAVING:.0%} on")


def _decoding(frame: bytes, out: Array) -> float:
    """Decode a frame and return the seconds it took."""
    began = time.perf_counter()
    decompress(frame, out, "trial")
    return time.perf_counter() - began


def _blosc() -> Any:
    # Imported here, so that opening an uncompressed store does not wait for it.
    return importlib.import_module("numcodecs.blosc")
