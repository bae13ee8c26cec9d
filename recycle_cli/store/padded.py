"""Copying samples into a padded batch: from a map nothing is left but to move bytes, in as few calls as can be."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from recycle_cli.errors import DamageError
from recycle_cli.store.chunked import ChunkedRows
from recycle_cli.store.dtypes import Array

Rows = Array | ChunkedRows

Span = tuple[int, int, int]
"""One sample: the number of the row array that holds it, its first row there, and its end."""

_FEW = 4
"""Below this many samples, slices of arrays are ready sooner than views of bytes."""


def padded(
    spans: Sequence[Span], sources: Mapping[int, Rows], row_shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Array:
    """The samples as one batch (n, L, *row_shape), zeros behind each; L is the longest's number of rows, at least 1.

    The sources' rows are of `dtype`. Raises DamageError where a source has rows of another shape.
    """
    for rows in sources.values():
        assert rows.dtype == dtype, f"{rows.dtype} rows in a batch of {dtype}"
        _check_shape(rows, row_shape)
    longest = max((stop - start for _, start, stop in spans), default=0)
    # Memory new from the system, as large batches are, is zeros page by page as it is touched: what lies behind short
    # samples costs nothing there, where zeros that we wrote would cost as much as rows.
    out = np.zeros((len(spans), max(1, longest), *row_shape), dtype)
    if len(spans) < _FEW or not all(isinstance(rows, np.ndarray) for rows in sources.values()):
        for slot, (number, start, stop) in zip(out, spans, strict=True):
            slot[: stop - start] = sources[number][start:stop]
    else:
        _by_bytes(out, spans, cast(Mapping[int, Array], sources))
    return out


def _check_shape(rows: Rows, expected: tuple[int, ...]) -> None:
    if rows.shape[1:] != expected:
        raise DamageError(
            f"a segment holds rows of shape {rows.shape[1:]} where {expected} is expected; "
            "it was not made with this store's recipe: remove it, or take another store"
        )


def _by_bytes(out: Array, spans: Sequence[Span], sources: Mapping[int, Array]) -> None:
    """The same, in half the time for short samples: a slice of a memoryview costs a third of an array's."""
    target = out.reshape(-1).view(np.uint8).data
    views = {number: rows.reshape(-1).view(np.uint8).data for number, rows in sources.items()}
    slot, width = out.strides[:2]
    at = 0
    for number, start, stop in spans:
        target[at : at + (stop - start) * width] = views[number][start * width : stop * width]
        at += slot
