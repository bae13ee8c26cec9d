"""Both ways of copying put whole samples into their slots, and rows of another shape are damage."""

import numpy as np
import pytest

from recycle_cli.errors import DamageError
from recycle_cli.store.padded import padded

LENGTHS = [3, 0, 5, 1, 2]


def spans_of(lengths):
    ends = np.cumsum(lengths).tolist()
    return [(0, end - length, end) for length, end in zip(lengths, ends, strict=True)]


@pytest.mark.parametrize("shape", [(4,), (2, 3), (4096,), ()])
@pytest.mark.parametrize("count", [0, 1, 3, 5])
def test_each_sample_is_in_its_slot_with_zeros_behind(shape, count, monkeypatch):
    monkeypatch.setattr(np, "empty", lambda shape, dtype=float: np.full(shape, 9, dtype))  # new memory is often zero
    rows = np.random.default_rng(0).random((sum(LENGTHS), *shape)).astype("<f2")
    spans = spans_of(LENGTHS)[:count]
    batch = padded(spans, {0: rows}, shape, rows.dtype)
    assert batch.shape == (count, max([1, *LENGTHS[:count]]), *shape)
    assert batch.dtype == rows.dtype
    for slot, (_, start, stop) in zip(batch, spans, strict=True):
        np.testing.assert_array_equal(slot[: stop - start], rows[start:stop])
        assert not slot[stop - start :].any()


def test_rows_of_another_dtype_are_a_mistake():
    with pytest.raises(AssertionError, match="uint16 rows in a batch of float16"):
        padded(spans_of(LENGTHS), {0: np.zeros((sum(LENGTHS), 4), "<u2")}, (4,), np.dtype("<f2"))


def test_rows_of_another_shape_are_refused():
    with pytest.raises(DamageError, match=r"rows of shape \(8,\) where \(4,\) is expected.*not made with this store"):
        padded(spans_of(LENGTHS), {0: np.zeros((sum(LENGTHS), 8), "<f2")}, (4,), np.dtype("<f2"))
