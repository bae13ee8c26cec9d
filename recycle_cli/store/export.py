"""Export chosen samples to one safetensors file or a folder of NumPy files, for other programs to read."""

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from recycle_cli.disk import STDOUT, sync, sync_tree
from recycle_cli.errors import MissingError, UsageError
from recycle_cli.keys import KEY_BYTES, Sample, keys_of
from recycle_cli.recipe import has_scales
from recycle_cli.store.dtypes import Array
from recycle_cli.store.files import NO_HARD_LINKS, storage_errors, write_file
from recycle_cli.store.index import Positions
from recycle_cli.store.liveness import unique_id
from recycle_cli.store.store import Store

_SAFETENSORS = {"float16": "F16", "bfloat16": "BF16", "float32": "F32", "int8": "I8", "int4": "U8"}
_BATCH_ROWS = 65_536

Shapes = dict[str, tuple[tuple[int, ...], np.dtype[Any], str]]
"""The shape of each array, its type in NumPy and in safetensors."""


def export(
    path: str,
    out: str,
    *,
    cut: str | None = None,
    keys: Sequence[str] = (),
    texts: Sequence[str] = (),
    limit: int | None = None,
    format: str = "safetensors",
) -> dict[str, Any]:
    """Write keys (n, 16) uint8, offsets (n + 1,) int64, values (rows, *shape) and scales (rows,), if any, to `out`.

    `keys` have 32 hexadecimal digits each, and `texts` are found by their content; without either, all samples are
    written in the order of the store. `limit` takes the first so many. `out` is a `.safetensors` file, `-` for one on
    stdout, or a folder of `.npy` files (bfloat16 as its bits in uint16). The memory needed does not grow with the
    export. Values are as stored: int4 rows are bytes, and `row_shape` in the metadata is the shape of a row of numbers;
    rows of a pooled store are one for each of the poolings in `pool`, in that order.
    Raises MissingError if a key or a text is not in the store, UsageError if `out` exists.
    """
    if out == STDOUT:
        if format != "safetensors":
            raise UsageError(f"--format {format} writes a folder, which stdout is not; name one, or take safetensors")
        with _printed() as file:
            found = export(path, file, cut=cut, keys=keys, texts=texts, limit=limit)
        return {**found, "output": STDOUT}
    store = Store.open(path)
    cut = _chosen_cut(store, cut)
    if format not in _FORMATS:
        raise UsageError(f"--format {format}: one of {', '.join(_FORMATS)} was expected")
    with storage_errors(out):
        if os.path.lexists(out):
            raise UsageError(f"{out}: exists already; choose another name")
    positions = _chosen(store, keys, texts)[:limit]
    if not len(positions):
        raise MissingError(f"{path}: nothing to export; the store holds {len(store)} samples")
    offsets = np.concatenate([[0], np.cumsum(store.lengths(positions))]).astype("<i8")
    metadata = _metadata(store, cut)
    with storage_errors(out):
        with _in_one_step(Path(out)) as scratch, ExitStack() as opened:
            arrays = _FORMATS[format](scratch, _shapes(store, cut, offsets), metadata, opened)
            _fill(store, cut, positions, offsets, arrays)
        size = sum(file.stat().st_size for file in (Path(out), *Path(out).rglob("*")) if file.is_file())
    counts = {"samples": len(positions), "rows": int(offsets[-1]), "bytes": size}
    return {"output": out, "format": format, **metadata, **counts}


def _metadata(store: Store, cut: str) -> dict[str, str]:
    """What is told beside the arrays."""
    told = {"cut": cut, "dtype": store.recipe.dtype, "fingerprint": store.fingerprint}
    if store.recipe.dtype == "int4":
        told["row_shape"] = json.dumps(store.row_shape(cut))
    if store.recipe.poolings:
        told["pool"] = ",".join(store.recipe.poolings)
    return told


@contextmanager
def _printed() -> Iterator[str]:
    """The path of a temporary file, whose bytes go to stdout at the end."""
    with TemporaryDirectory(prefix="recycle-export-") as folder:
        file = Path(folder, "export.safetensors")
        yield str(file)
        with file.open("rb") as content:
            shutil.copyfileobj(content, sys.stdout.buffer)
            sys.stdout.buffer.flush()


def _chosen(store: Store, keys: Sequence[str], texts: Sequence[str]) -> Positions:
    """The positions of the samples with these keys and of those that are these texts; without either, of all."""
    chosen = [_by_key(store, keys)] if keys else []
    chosen += [_by_text(store, texts)] if texts else []
    return np.concatenate(chosen or [store.positions()])


def _shapes(store: Store, cut: str, offsets: Array) -> Shapes:
    """The arrays of an export, of samples whose rows end at these offsets."""
    samples, rows = len(offsets) - 1, int(offsets[-1])
    shapes: Shapes = {
        "keys": ((samples, KEY_BYTES), np.dtype("u1"), "U8"),
        "offsets": ((samples + 1,), np.dtype("<i8"), "I64"),
        "values": ((rows, *store.stored_shape(cut)), store.stored_dtype, _SAFETENSORS[store.recipe.dtype]),
    }
    if has_scales(store.recipe.dtype):
        shapes["scales"] = ((rows,), np.dtype("<f4"), "F32")
    return shapes


class _Out:
    """An array in a file, written from front to back. It is not mapped: on a full disk that would end the process."""

    def __init__(self, descriptor: int, at: int) -> None:
        self._descriptor, self._at = descriptor, at

    def write(self, data: Array) -> None:
        """Append the array's bytes."""
        view = np.ascontiguousarray(data).reshape(-1).view(np.uint8).data
        while view:
            written = os.pwrite(self._descriptor, view, self._at)
            self._at, view = self._at + written, view[written:]


def _created(path: Path, opened: ExitStack) -> int:
    """A new file, open for writing until `opened` is left."""
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666)
    opened.callback(os.close, descriptor)
    return descriptor


def _safetensors(path: Path, shapes: Shapes, metadata: dict[str, str], opened: ExitStack) -> dict[str, _Out]:
    """Create a safetensors file: 8 bytes of header length, JSON header, then the arrays."""
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    # Widest item first, so that every array starts at a multiple of its item size.
    for name, (shape, dtype, code) in sorted(shapes.items(), key=lambda item: -item[1][1].itemsize):
        start, end = end, end + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        header[name] = {"dtype": code, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    descriptor = _created(path, opened)
    _Out(descriptor, 0).write(np.frombuffer(len(text).to_bytes(8, "little") + text, np.uint8))
    return {name: _Out(descriptor, 8 + len(text) + header[name]["data_offsets"][0]) for name in shapes}


def _numpy(path: Path, shapes: Shapes, metadata: dict[str, str], opened: ExitStack) -> dict[str, _Out]:
    """Create a folder of `.npy` files with an `export.json`."""
    path.mkdir()
    write_file(path / "export.json", (json.dumps(metadata, indent=2) + "\n").encode())
    out = {}
    for name, (shape, dtype, _) in shapes.items():
        header = BytesIO()
        about = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(header, about)
        out[name] = _Out(_created(path / f"{name}.npy", opened), 0)
        out[name].write(np.frombuffer(header.getvalue(), np.uint8))
    return out


_FORMATS = {"safetensors": _safetensors, "numpy": _numpy}


def _fill(store: Store, cut: str, positions: Positions, offsets: Array, out: dict[str, _Out]) -> None:
    """Write the samples, about `_BATCH_ROWS` rows at a time."""
    out["keys"].write(store.keys(positions))
    out["offsets"].write(offsets)
    first = 0
    while first < len(positions):
        last = max(first + 1, int(np.searchsorted(offsets, offsets[first] + _BATCH_ROWS, side="right")) - 1)
        if offsets[first] < offsets[last]:
            values, scales = store.gather_rows(cut, positions[first:last])
            out["values"].write(values)
            if scales is not None:
                out["scales"].write(scales)
        first = last


@contextmanager
def _in_one_step(out: Path) -> Iterator[Path]:
    """Yield a scratch path beside `out`, which becomes `out` at the end, or is removed if anything fails."""
    scratch = out.with_name(f".export-{unique_id()}")
    try:
        yield scratch
        sync_tree(scratch) if scratch.is_dir() else sync(scratch)
        _appear(scratch, out)
        sync(out.parent)
    finally:
        with suppress(OSError):
            shutil.rmtree(scratch) if scratch.is_dir() else scratch.unlink(missing_ok=True)


def _appear(scratch: Path, out: Path) -> None:
    """Give the scratch path its name, unless something has taken that meanwhile."""
    try:
        if scratch.is_dir():
            scratch.rename(out)  # fails on anything but an empty folder
        else:
            os.link(scratch, out)
    except (FileExistsError, NotADirectoryError):
        raise UsageError(f"{out}: exists already; choose another name") from None
    except OSError as error:
        if error.errno not in NO_HARD_LINKS or os.path.lexists(out):
            raise
        scratch.rename(out)


def _chosen_cut(store: Store, cut: str | None) -> str:
    cuts = list(store.recipe.cuts)
    if cut is None and len(cuts) == 1:
        return cuts[0]
    if cut not in cuts:
        raise UsageError(f"--cut {cut}: the store has {', '.join(cuts)}; name one of them")
    return cut


def _by_key(store: Store, keys: Sequence[str]) -> Positions:
    for key in keys:
        if not re.fullmatch(rf"[0-9a-fA-F]{{{2 * KEY_BYTES}}}", key):
            raise UsageError(f"--key {key}: expected {2 * KEY_BYTES} hexadecimal digits, two for each byte of a key")
    wanted = np.frombuffer(b"".join(map(bytes.fromhex, keys)), np.uint8).reshape(len(keys), KEY_BYTES)
    positions = store.find(wanted)
    if (positions < 0).any():
        missing = keys[int(np.argmin(positions))]
        raise MissingError(f"{store.path}: no sample with key {missing}")
    return positions


def _by_text(store: Store, texts: Sequence[str]) -> Positions:
    """The positions of the samples that are these texts. Raises MissingError."""
    positions = store.lookup(*keys_of([Sample("", {"text": text}) for text in texts]))
    if (positions < 0).any():
        missing = texts[int(np.argmin(positions))]
        raise MissingError(f"{store.path}: no sample of the text {missing[:80]!r}; add it with `recycle precompute`")
    return positions
