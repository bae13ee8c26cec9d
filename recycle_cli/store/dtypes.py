"""Convert float32 rows to the stored number formats and back; a value that a format cannot hold is an error."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from recycle_cli.errors import DataError
from recycle_cli.store.fourbit import LARGEST, is_packed, pack, unpack

Array = npt.NDArray[Any]

STORED = {"float16": "<f2", "bfloat16": "<u2", "float32": "<f4", "int8": "|i1", "int4": "|u1"}
"""The NumPy type that stores each recipe dtype. bfloat16 is stored as its bits: NumPy and core Zarr lack the type. int4
is packed, as `fourbit.py` says."""

_EXPONENT = {"float16": 0x7C00, "bfloat16": 0x7F80}
_LARGEST = {"float16": 65504.0, "bfloat16": 3.3895e38}
_LARGEST_STEP = {"int8": 127.0, "int4": LARGEST}
"""The largest number of a row, as a multiple of its scale."""


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """Rows in stored form: values (n, *stored_shape), for int8 and int4 a float32 scale for each row, and for int4 the
    shape that its rows had before they were packed."""

    values: Array
    scales: Array | None = None
    packed: tuple[int, ...] | None = None

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape of a row."""
        return self.values.shape[1:] if self.packed is None else self.packed

    @property
    def nbytes(self) -> int:
        """Bytes of the rows, scales included."""
        return self.values.nbytes + (0 if self.scales is None else self.scales.nbytes)


def numpy_dtype(dtype: str) -> np.dtype[Any]:
    """The NumPy dtype that holds rows of the recipe dtype `dtype`."""
    return np.dtype(STORED[dtype])


def encode(rows: Array, dtype: str) -> EncodedRows:
    """Convert rows (n, *shape) to their stored form; rows that have it already are only checked.

    float16 and bfloat16 round to nearest even; int8 is symmetric per row (scale = largest magnitude / 127); int4 has
    also a scale for each 16 numbers.
    Raises DataError if a value is NaN, infinite or out of the range of `dtype`.
    """
    if dtype in _LARGEST_STEP:
        return _scaled(rows, dtype)
    values = rows if rows.dtype == numpy_dtype(dtype) else _convert(np.asarray(rows, dtype="<f4"), dtype)
    if not is_finite(values, dtype):
        raise _cannot_hold(rows, values, dtype)
    return EncodedRows(values)


def decode(
    values: Array, scales: Array | None, dtype: str, row_shape: tuple[int, ...] | None = None
) -> npt.NDArray[np.float32]:
    """Convert stored rows (..., *stored_shape) to float32 (..., *row_shape).

    scales     (...) of int8 and int4 only
    row_shape  needed for int4 only, whose rows are packed
    """
    if dtype == "int4":
        assert scales is not None, "int4 rows are meaningless without their scales"
        assert row_shape is not None, "int4 rows are meaningless without the shape they had before they were packed"
        return unpack(values, scales, row_shape)
    if dtype == "bfloat16":
        return (values.astype("<u4") << 16).view("<f4")
    decoded = values.astype("<f4")
    if dtype == "int8":
        assert scales is not None, "int8 rows are meaningless without their scales"
        decoded *= scales.reshape(scales.shape + (1,) * (values.ndim - scales.ndim))
    return decoded


def _convert(rows: Array, dtype: str) -> Array:
    if dtype == "float32":
        return rows
    if dtype == "float16":
        with np.errstate(over="ignore"):
            return rows.astype("<f2")
    bits = np.ascontiguousarray(rows).view("<u4")
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(rows), np.uint32(0x7FC0), rounded).astype("<u2")


def is_finite(values: Array, dtype: str) -> bool:
    """Whether no stored value is NaN or infinite."""
    if dtype == "int8" or not values.size:
        return True
    if dtype == "int4":
        return is_packed(values)
    if dtype == "float32":
        return bool(np.isfinite(values).all())
    # Look at the bits: an all-ones exponent is NaN or infinity, and integers compare several times faster than halves.
    return int((np.ascontiguousarray(values).view("<u2") & 0x7FFF).max()) < _EXPONENT[dtype]


def are_scales(scales: Array, dtype: str) -> bool:
    """Whether no row of a store of this dtype with these scales (n,) can hold NaN or infinity."""
    with np.errstate(over="ignore"):
        return bool(np.isfinite(scales * np.float32(_LARGEST_STEP[dtype])).all())


def _scaled(rows: Array, dtype: str) -> EncodedRows:
    exact = np.asarray(rows, dtype="<f4")
    flat = exact.reshape(len(exact), math.prod(exact.shape[1:]))
    largest = np.abs(flat).max(axis=1, initial=0.0)
    if not np.isfinite(largest).all():
        raise _cannot_hold(rows, exact, dtype)
    step = np.float32(_LARGEST_STEP[dtype])
    # Rounded up, the scale of the largest float32 would make it infinite.
    scales = np.minimum(largest / step, np.nextafter(np.finfo("<f4").max / step, np.float32(0))).astype("<f4")
    if dtype == "int4":
        return EncodedRows(pack(flat, scales), scales, exact.shape[1:])
    # Rows of zeros, or of denormals too small to scale, are stored as zeros.
    steps = np.divide(flat, scales[:, None], out=np.zeros_like(flat), where=scales[:, None] > 0)
    values = np.clip(np.rint(steps), -step, step).astype("|i1")
    return EncodedRows(values.reshape(exact.shape), scales)


def _cannot_hold(rows: Array, values: Array, dtype: str) -> DataError:
    """The error that names the first value which is not finite, before or after the conversion."""
    exact = rows if rows.dtype.kind == "f" else decode(values, None, dtype)
    bad = ~np.isfinite(values if values.dtype.kind == "f" else decode(values, None, dtype))
    where = tuple(int(axis[0]) for axis in np.nonzero(bad))
    value = float(exact[where])
    if math.isfinite(value):
        return DataError(
            f"row {where[0]} holds {value:g}, beyond the largest {dtype} ({_LARGEST[dtype]:g}): "
            f"use --dtype {'bfloat16' if dtype == 'float16' else 'float32'}"
        )
    return DataError(
        f"row {where[0]} holds {value}, and a store keeps finite numbers only: check the model, "
        f"or use --precision float32 and --dtype bfloat16"
    )
