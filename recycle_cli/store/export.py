"""Export chosen samples to one safetensors file or a folder of NumPy files, for other programs to read."""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from recycle_cli.errors import MissingError, UsageError
from recycle_cli.keys import KEY_BYTES
from recycle_cli.store.dtypes import Array
from recycle_cli.store.files import storage_errors
from recycle_cli.store.index import Positions
from recycle_cli.store.liveness import unique_id
from recycle_cli.store.store import Store

FORMATS = ("safetensors", "numpy")
_SAFETENSORS = {"float16": "F16", "bfloat16": "BF16", "float32": "F32", "int8": "I8"}
_BATCH_ROWS = 65_536


def export(
    path: str,
    out: str,
    *,
    cut: str | None = None,
    keys: Sequence[str] | None = None,
    limit: int | None = None,
    format: str = "safetensors",
) -> dict[str, Any]:
    """Write keys (n, 16) uint8, offsets (n + 1,) int64, values (rows, *shape) and for int8 scales (rows,) to `out`.

    `keys` have 32 hexadecimal digits each; without them, all samples are written in the order of the store. `limit`
    takes the first so many. `out` is a `.safetensors` file or a folder of `.npy` files (bfloat16 as its bits in
    uint16). The memory needed does not grow with the export.
    Raises MissingError if a key is not in the store, UsageError if `out` exists.
    """
    store = Store.open(path)
    cut = _chosen_cut(store, cut)
    if format not in FORMATS:
        raise UsageError(f"--format {format}: one of {', '.join(FORMATS)} was expected")
    if Path(out).exists():
        raise UsageError(f"{out}: exists already; choose another name")
    positions = _positions(store, keys)[:limit]
    if not len(positions):
        raise MissingError(f"{path}: nothing to export; the store holds {len(store)} samples")
    offsets = np.concatenate([[0], np.cumsum(store.lengths(positions))]).astype("<i8")
    shapes: Shapes = {
        "keys": ((len(positions), KEY_BYTES), np.dtype("u1"), "U8"),
        "offsets": ((len(positions) + 1,), np.dtype("<i8"), "I64"),
        "values": ((int(offsets[-1]), *store.row_shape(cut)), store.stored_dtype, _SAFETENSORS[store.recipe.dtype]),
    }
    if store.recipe.dtype == "int8":
        shapes["scales"] = ((int(offsets[-1]),), np.dtype("<f4"), "F32")
    create = _safetensors if format == "safetensors" else _numpy
    metadata = {"cut": cut, "dtype": store.recipe.dtype, "fingerprint": store.fingerprint}
    with storage_errors(out), _in_one_step(Path(out)) as scratch:
        _fill(store, cut, positions, offsets, create(scratch, shapes, metadata))
    size = sum(file.stat().st_size for file in (Path(out), *Path(out).rglob("*")) if file.is_file())
    return {
        "output": out,
        "format": format,
        **metadata,
        "samples": len(positions),
        "rows": int(offsets[-1]),
        "bytes": size,
    }


Shapes = dict[str, tuple[tuple[int, ...], np.dtype[Any], str]]


def _safetensors(path: Path, shapes: Shapes, metadata: dict[str, str]) -> dict[str, Array]:
    """Create a safetensors file (8 bytes of header length, JSON header, data) and map its arrays for writing."""
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    # Widest item first, so that every array starts at a multiple of its item size.
    for name, (shape, dtype, code) in sorted(shapes.items(), key=lambda item: -item[1][1].itemsize):
        start, end = end, end + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        header[name] = {"dtype": code, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("xb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return {
        name: np.memmap(path, dtype, "r+", 8 + len(text) + header[name]["data_offsets"][0], shape)
        for name, (shape, dtype, _) in shapes.items()
        if np.prod(shape, dtype=np.int64)
    }


def _numpy(path: Path, shapes: Shapes, metadata: dict[str, str]) -> dict[str, Array]:
    """Create a folder of `.npy` files with an `export.json`, and map the files for writing."""
    path.mkdir()
    (path / "export.json").write_text(json.dumps(metadata, indent=2) + "\n")
    return {
        name: np.lib.format.open_memmap(path / f"{name}.npy", "w+", dtype, shape)
        for name, (shape, dtype, _) in shapes.items()
    }


def _fill(store: Store, cut: str, positions: Positions, offsets: Array, out: dict[str, Array]) -> None:
    """Copy the samples into the mapped arrays, about `_BATCH_ROWS` rows at a time."""
    out["keys"][:] = store.keys(positions)
    out["offsets"][:] = offsets
    first = 0
    while first < len(positions):
        last = max(first + 1, int(np.searchsorted(offsets, offsets[first] + _BATCH_ROWS, side="right")) - 1)
        start, stop = int(offsets[first]), int(offsets[last])
        if start < stop:
            values, scales = store.gather_rows(cut, positions[first:last])
            out["values"][start:stop] = values
            if scales is not None:
                out["scales"][start:stop] = scales
        first = last


@contextmanager
def _in_one_step(out: Path) -> Iterator[Path]:
    """Yield a scratch path beside `out`, renamed to `out` at the end or removed if the block fails."""
    scratch = out.with_name(f".{out.name}-{unique_id()}")
    try:
        yield scratch
        scratch.rename(out)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True) if scratch.is_dir() else scratch.unlink(missing_ok=True)
        raise


def _chosen_cut(store: Store, cut: str | None) -> str:
    cuts = list(store.recipe.cuts)
    if cut is None and len(cuts) == 1:
        return cuts[0]
    if cut not in cuts:
        raise UsageError(f"--cut {cut}: the store has {', '.join(cuts)}; name one of them")
    return cut


def _positions(store: Store, keys: Sequence[str] | None) -> Positions:
    if keys is None:
        return store.positions()
    try:
        wanted = np.frombuffer(b"".join(bytes.fromhex(key) for key in keys), np.uint8).reshape(len(keys), KEY_BYTES)
    except ValueError:
        raise UsageError(
            f"keys: each is {2 * KEY_BYTES} hexadecimal digits, as `recycle store export` writes"
        ) from None
    positions = store.find(wanted)
    if (positions < 0).any():
        missing = keys[int(np.argmin(positions))]
        raise MissingError(f"{store.path}: no sample with key {missing}")
    return positions
