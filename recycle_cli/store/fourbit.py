"""Rows of four bits a number: a code for each, a scale of 8 bits for each 16 of them, one of 32 bits for each row.

A row of n numbers has g = ceil(n / 16) groups (NVFP4's blocks). It is stored as 9 g bytes, beside its float32 scale:

    8 g bytes  the codes (e2m1), two a byte, the earlier number's in the lower half; zeros behind the last number
    g bytes    the scale of each group (e4m3)

A number is CODES[its code] * (GROUP_SCALES[its group's scale] * the row's scale), in float32.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from recycle_cli.recipe import GROUP, GROUP_BYTES

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]

_HALVES = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])

CODES: Floats = np.concatenate([_HALVES, -_HALVES]).astype("<f4")
"""(16,) the number of each code, e2m1: sign, two bits of exponent, one of mantissa."""

_EIGHTHS = np.arange(8) / 8

GROUP_SCALES: Floats = np.concatenate(
    [_EIGHTHS * 2.0**-6, *((1 + _EIGHTHS) * 2.0**exponent for exponent in range(-6, 9))]
).astype("<f4")[:-1]
"""(127,) the number of each scale of a group, e4m3: 0, then 2^-9 to 448. No scale is negative or NaN (127 to 255)."""

LARGEST = float(CODES.max() * GROUP_SCALES.max())
"""The largest number that a row can hold, as a multiple of its scale."""

_STEPS = 4
"""The bounds between neighbouring numbers of CODES are multiples of a fourth."""

_BETWEEN_SCALES = (GROUP_SCALES[:-1] + GROUP_SCALES[1:]) / 2
PAIRS: Floats = CODES[np.arange(256)[:, None] >> (0, 4) & 15]
"""(256, 2) the two numbers of each byte of codes."""

_PAIRS = PAIRS.view("<c8")[:, 0]
"""The same as the halves of a complex number, which one look-up copies."""

_fourths = np.arange(256).astype("i1").astype(int)
_NEAREST = np.searchsorted((_HALVES[:-1] + _HALVES[1:]) / 2 * _STEPS, np.abs(_fourths), side="right").astype("u1")
_NEAREST += 8 * ((_NEAREST > 0) & (_fourths < 0)).astype("u1")
"""(256,) the code of a whole number of fourths, cut off towards 0, by its bits as int8."""


def pack(rows: Floats, scales: Floats) -> Array:
    """Pack rows (n, numbers), all finite, to bytes (n, 9 g). `scales` (n,): their largest magnitudes over LARGEST.

    A group's scale is a sixth of its largest magnitude, rounded to the nearest. Numbers round to the nearest code.
    """
    groups = -(-rows.shape[1] // GROUP)
    padded = np.zeros((len(rows), groups, GROUP), "<f4")
    padded.reshape(len(rows), groups * GROUP)[:, : rows.shape[1]] = rows
    magnitudes = np.abs(padded).reshape(-1)
    while len(magnitudes) > len(rows) * groups:
        # Halving them takes a fifth of the time of a maximum over an axis of 16.
        magnitudes = np.maximum(magnitudes[::2], magnitudes[1::2])
    relative = magnitudes.reshape(len(rows), groups) / (_or_endless(scales) * CODES.max())[:, None]
    # Beyond the largest scale are only errors of rounding, large for row scales that are too small to be exact.
    own = np.searchsorted(_BETWEEN_SCALES, relative).astype("u1")
    fourths = padded / _or_endless(GROUP_SCALES[own] * scales[:, None])[:, :, None]
    fourths *= _STEPS
    codes = np.take(_NEAREST, fourths.astype("i1").view("u1")).reshape(len(rows), groups * GROUP)
    return np.concatenate([codes[:, ::2] | codes[:, 1::2] << 4, own], axis=1)


def _or_endless(units: Floats) -> Floats:
    """The units, but for 0, too small to divide by, infinity, which leaves nothing of a number."""
    return np.where(units > 0, units, np.float32(np.inf))


def unpack(values: Array, scales: Floats, row_shape: tuple[int, ...]) -> Floats:
    """Unpack rows (..., 9 g), with scales (...), to float32 (..., *row_shape)."""
    lead, numbers = values.shape[:-1], math.prod(row_shape)
    groups = values.shape[-1] // GROUP_BYTES
    ends = groups * GROUP // 2
    # A scale that no writer stores would be beyond the table: whatever it gives, it ends no process.
    units = np.take(GROUP_SCALES, values[..., ends:], mode="clip") * scales[..., None]
    rows: Floats = np.take(_PAIRS, values[..., :ends]).view("<f4").reshape(*lead, groups, GROUP)
    rows *= units[..., None]
    return rows.reshape(*lead, groups * GROUP)[..., :numbers].reshape(*lead, *row_shape)


def is_packed(values: Array) -> bool:
    """Whether every group of packed rows (n, 9 g) has a scale that `pack` gives: none negative, none NaN."""
    scales = values[:, values.shape[1] // GROUP_BYTES * (GROUP // 2) :]
    return int(scales.max(initial=0)) < len(GROUP_SCALES)
