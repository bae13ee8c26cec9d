"""Samples reach their slots whole, whichever way they are copied, and rows of another shape are damage."""

import numpy as np
import pytest

from recycle_cli.errors import DamageError
from recycle_cli.store.padded import pad_into, pad_one

LENGTHS = [3, 0, 5, 1, 2]


def spans_of(lengths):
    ends = np.cumsum(lengths).tolist()
    return [(0, end - length, end) for length, end in zip(lengths, ends, strict=True)]


@pytest.mark.parametrize("shape", [(4,), (2, 3), (4096,), ()])
@pytest.mark.parametrize("contiguous", [True, False])
def test_each_sample_is_in_its_slot_with_zeros_behind(shape, contiguous):
    rows = np.random.default_rng(0).random((sum(LENGTHS), *shape)).astype("<f2")
    out = np.full((len(LENGTHS), 6, *shape), 9, "<f2")
    if not contiguous:
        out = np.full((2 * len(LENGTHS), 6, *shape), 9, "<f2")[::2]
    pad_into(out, spans_of(LENGTHS), {0: rows})
    for slot, (_, start, stop) in enumerate(spans_of(LENGTHS)):
        np.testing.assert_array_equal(out[slot, : stop - start], rows[start:stop])
        assert not out[slot, stop - start :].any()


def test_rows_of_another_shape_are_refused():
    rows, out = np.zeros((sum(LENGTHS), 8), "<f2"), np.zeros((len(LENGTHS), 6, 4), "<f2")
    with pytest.raises(DamageError, match=r"rows of shape \(8,\) where \(4,\) is expected"):
        pad_into(out, spans_of(LENGTHS), {0: rows})
    with pytest.raises(DamageError, match="not made with this store"):
        pad_one(out[0], rows[:2])


def test_a_sample_never_runs_into_the_next_slot():
    with pytest.raises(AssertionError, match="longer than its slot"):
        pad_into(np.zeros((5, 4, 2), "<f2"), spans_of(LENGTHS), {0: np.ones((sum(LENGTHS), 2), "<f2")})
