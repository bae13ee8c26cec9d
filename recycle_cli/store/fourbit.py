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
_LAST = len(GROUP_SCALES) - 1

_PER_SCALE: Floats = np.concatenate([[0], 1 / GROUP_SCALES[1:]]).astype("<f4")
"""(127,) what turns a number into units of a scale; only groups of zeros have the scale 0."""

_TRIED = (5, 4, -1)
"""Steps from a group's scale to others that are tried. They give most of what all of them would (docs/notes.md)."""

_FINE = 16
_fine = np.arange(256) / _FINE
_SQUARES: Floats = (np.abs(_fine[:, None] - _HALVES).min(axis=1) ** 2).astype("<f4")
"""(256,) the squared error of a whole number of sixteenths, rounded to the nearest code."""

_AT_ONCE = 12_288
"""Groups that are packed at once; more would not stay in the processor's cache."""

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

    A group gets the scale, of a few, with the least squared error. Numbers round to the nearest code.
    """
    groups = -(-rows.shape[1] // GROUP)
    relative = np.zeros((len(rows), groups * GROUP), "<f4")
    np.divide(rows, scales[:, None], out=relative[:, : rows.shape[1]], where=scales[:, None] > 0)
    every = relative.reshape(-1, GROUP)
    codes, own = np.empty((len(every), GROUP // 2), "u1"), np.empty(len(every), "u1")
    for start in range(0, len(every), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        own[part] = _best_scales(np.abs(every[part]))
        fourths = (every[part] * (_PER_SCALE[own[part]] * _STEPS)[:, None]).astype("i1")
        found = np.take(_NEAREST, fourths.view("u1"))
        codes[part] = found[:, ::2] | found[:, 1::2] << 4
    return np.concatenate([codes.reshape(len(rows), groups * GROUP // 2), own.reshape(len(rows), groups)], axis=1)


def _best_scales(magnitudes: Floats) -> Array:
    """The scale (n,) of each group of magnitudes (n, 16), which are multiples of the scale of their row.

    Tried are the one nearest to a sixth of the group's largest magnitude and those of _TRIED around it: codes lie close
    together below 2 and far apart above 4, so that a larger scale may suit most of the numbers better, and a smaller
    one may be worth cutting off the largest. The group of the row's largest number keeps the largest scale, and with it
    that number its value: rows that were packed before are packed to the same numbers again, but for groups below
    a ten-thousandth of that number, whose scales are few.
    """
    largest = magnitudes.reshape(-1)
    while len(largest) > len(magnitudes):
        # Halving them takes a fifth of the time of a maximum over an axis of 16.
        largest = np.maximum(largest[::2], largest[1::2])
    # Beyond the largest scale are only errors of rounding, as they are for row scales too small to be exact.
    nearest = np.maximum(np.searchsorted(_BETWEEN_SCALES, largest / CODES.max()), largest > 0).astype("u1")
    best, least = nearest, _squared_errors(magnitudes, nearest)
    for steps in _TRIED:
        tried = np.where(nearest < _LAST, np.clip(nearest + np.int16(steps), 1, _LAST), _LAST).astype("u1")
        errors = _squared_errors(magnitudes, tried)
        best, least = np.where(errors < least, tried, best), np.minimum(errors, least)
    return best


def _squared_errors(magnitudes: Floats, scales: Array) -> Floats:
    """The squared error (n,) of each group of magnitudes (n, 16) in these scales (n,), taken from their sixteenths.

    No magnitude is beyond 15 units of a scale: 6, and what the coarsest of the scales are too small by.
    """
    steps = magnitudes * (_PER_SCALE[scales] * _FINE)[:, None]
    steps += 0.5
    squares = np.take(_SQUARES, steps.astype("u1"))
    summed: Floats = (squares @ np.ones(GROUP, "<f4")) * GROUP_SCALES[scales] ** 2
    return summed


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
