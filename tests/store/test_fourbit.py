"""Rows of four bits a number: what each code and scale means, how far a row moves, and what is never written."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recycle_cli.batches import widened
from recycle_cli.batches.unpacked import looked_up
from recycle_cli.errors import DamageError
from recycle_cli.store import Store, decode, encode
from recycle_cli.store.fourbit import CODES, GROUP_SCALES, LARGEST
from recycle_cli.store.segment import check_specs

from .corpora import Corpus

LARGEST_FLOAT = np.finfo("<f4").max


def through(rows):
    """The rows as they come back."""
    encoded = encode(rows, "int4")
    assert (encoded.values.shape, encoded.values.dtype) == ((len(rows), 9 * -(-rows[0].size // 16)), np.uint8)
    assert encoded.row_shape == rows.shape[1:]
    return decode(encoded.values, encoded.scales, "int4", encoded.row_shape)


def test_the_tables_are_e2m1_and_e4m3():
    types = pytest.importorskip("ml_dtypes")
    np.testing.assert_array_equal(np.arange(16, dtype="u1").view(types.float4_e2m1fn).astype("<f4"), CODES)
    np.testing.assert_array_equal(np.arange(127, dtype="u1").view(types.float8_e4m3fn).astype("<f4"), GROUP_SCALES)
    assert LARGEST == 6 * 448


def test_each_number_is_the_nearest_of_its_group():
    rows = np.random.default_rng(0).standard_normal((200, 384)).astype("<f4")
    groups, back = rows.reshape(-1, 16), through(rows).reshape(-1, 16)
    encoded = encode(rows, "int4")
    units = (GROUP_SCALES[encoded.values[:, 192:]] * encoded.scales[:, None]).reshape(-1)
    nearest = np.abs(groups[:, :, None] - CODES * units[:, None, None]).min(axis=2)
    np.testing.assert_allclose(np.abs(groups - back), nearest, rtol=1e-4, atol=1e-7)
    assert np.linalg.norm(groups - back) / np.linalg.norm(groups) < 0.09


def test_a_group_has_nearly_the_best_of_all_scales():
    """Compared with each of the 127, and with the usual choice, a sixth of the group's largest magnitude."""
    rows = np.random.default_rng(0).standard_normal((200, 384)).astype("<f4")
    encoded = encode(rows, "int4")
    magnitudes = np.abs(rows).reshape(-1, 16)
    units = GROUP_SCALES * np.repeat(encoded.scales, 24)[:, None]
    moved = np.stack([squares_in(magnitudes, one) for one in units.T], axis=1)
    chosen = np.take_along_axis(moved, encoded.values[:, 192:].reshape(-1, 1).astype(int), axis=1)[:, 0]
    usual = np.abs(units - magnitudes.max(axis=1, keepdims=True) / 6).argmin(axis=1)
    by_usual = moved[np.arange(len(moved)), usual]
    assert (chosen <= 1.2 * by_usual).all()  # the movements are compared in rounded numbers
    assert chosen.sum() < 0.85 * by_usual.sum()
    assert chosen.sum() < 1.1 * moved.min(axis=1).sum()


def squares_in(magnitudes, units):
    """How far the nearest codes in these units are from each group of 16 magnitudes, squared and summed."""
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.where(units[:, None] > 0, magnitudes / units[:, None], 0)
    nearest = np.abs(steps[..., None] - CODES[:8]).argmin(axis=-1)
    return ((magnitudes - CODES[nearest] * units[:, None]) ** 2).sum(axis=1)


def test_the_page_tells_how_to_read_them():
    rows = np.random.default_rng(0).standard_normal((20, 100)).astype("<f4")
    encoded = encode(rows, "int4")
    page = (Path(__file__).parents[2] / "docs/store-format.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    steps = [mantissa / 8 * 2.0**-6 for mantissa in range(8)]
    steps += [(1 + mantissa / 8) * 2.0**exponent for exponent in range(-6, 9) for mantissa in range(8)]
    halves = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    names = {"np": np, "g": 7, "n": 100, "values": encoded.values, "scales": encoded.scales}
    names |= {"E2M1": np.array([*halves, *(-half for half in halves)], "<f4"), "E4M3": np.array(steps, "<f4")}
    exec(code, names)  # noqa: S102 - the page of this repository
    np.testing.assert_array_equal(names["rows"], through(rows))


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 70),
    st.sampled_from([0, 1e-44, 1e-38, 1e-10, 1e-4, 1, 1e10, 1e34]),
    st.integers(0, 30),
    st.integers(0, 2**32),
)
def test_a_row_moves_by_a_fifth_of_its_length_at_most(numbers, size, spread, seed):
    """Whatever it holds: the numbers between two codes are a fifth of themselves away at most, or small beside 6."""
    generator = np.random.default_rng(seed)
    rows = generator.standard_normal((3, numbers)) * size * 10.0 ** -generator.integers(0, spread + 1, (3, numbers))
    rows = rows.astype("<f4")
    back = through(rows)
    assert np.isfinite(back).all()
    largest = np.abs(rows).max()
    if largest > 1e-34:  # below, scales are no longer exact
        moved = np.linalg.norm((back - rows).astype(float), axis=1)
        assert (moved <= 0.21 * np.linalg.norm(rows.astype(float), axis=1)).all()
    assert (np.abs(back).max() <= 1.1 * largest) or largest < 1e-34


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_the_largest_numbers_stay_finite(dtype):
    rows = np.array([[LARGEST_FLOAT, -LARGEST_FLOAT, 0], [LARGEST_FLOAT, 1, 2]], "<f4")
    encoded = encode(rows, dtype)
    back = decode(encoded.values, encoded.scales, dtype, encoded.row_shape)
    np.testing.assert_allclose(back[:, 0], LARGEST_FLOAT, rtol=1e-6)


@pytest.mark.parametrize("small", [1e-3, 5e-6, 4e-6, 2e-6, 1e-6, 3e-7, 1e-7, 1e-9])
def test_small_groups_of_a_large_row_have_the_few_numbers_that_are_left(small):
    rows = np.full((1, 32), small, "<f4")
    rows[0, 0] = 1
    back = through(rows)
    assert back[0, 0] == pytest.approx(1)
    unit = GROUP_SCALES[1] / LARGEST
    assert abs(back[0, 16:] - small).max() <= max(unit / 4, small / 7)
    assert (back[0, 16:] > 0).all() == (small > unit / 4)


@pytest.mark.parametrize("shape", [(), (1,), (8,), (17,), (384,), (3, 5, 7)])
def test_rows_of_zeros_and_of_any_width_come_back(shape):
    rows = np.zeros((4, *shape), "<f4")
    assert not encode(rows, "int4").values.any()
    np.testing.assert_array_equal(through(rows), rows)
    signs = np.random.default_rng(1).choice([-1.0, 1.0], (4, *shape)).astype("<f4")
    np.testing.assert_allclose(through(3 * signs), 3 * signs, rtol=1e-6)
    assert len(encode(rows[:0], "int4").values) == 0


@pytest.mark.parametrize(("smallest", "kept"), [(1, True), (1e-4, True), (1e-6, False)])
def test_rows_that_have_passed_once_are_kept_but_for_groups_far_below_their_largest_number(smallest, kept):
    generator = np.random.default_rng(2)
    sizes = smallest ** generator.uniform(0, 1, (300, 16, 1))
    rows = through((generator.standard_normal((300, 16, 16)) * sizes).reshape(300, 256).astype("<f4"))
    again = through(rows)
    assert np.allclose(again, rows, rtol=1e-6, atol=0) == kept
    assert (abs(again - rows).max(axis=1) <= 1e-5 * abs(rows).max(axis=1)).all()


@pytest.mark.parametrize("shape", [(1, 16), (3, 200_704), (513, 384)])
def test_rows_are_packed_one_as_the_other_however_many_and_wide_they_are(shape):
    rows = np.random.default_rng(5).standard_normal(shape).astype("<f4")
    together = encode(rows, "int4")
    for place in {0, len(rows) // 2, len(rows) - 1}:
        alone = encode(rows[place : place + 1], "int4")
        np.testing.assert_array_equal(alone.values[0], together.values[place])


@pytest.mark.parametrize("shape", [(64,), (24,), (3, 5, 7), (1,)])
def test_every_device_gives_the_same_bits(shape):
    rows = np.random.default_rng(3).standard_normal((6, *shape)).astype("<f4") * 10.0 ** np.arange(-40, 20, 10).reshape(
        6, *(1 for _ in shape)
    ).astype("<f4")
    encoded = encode(rows, "int4")
    expected = decode(encoded.values, encoded.scales, "int4", shape).view("<u4")
    batch = {
        "rows": torch.from_numpy(encoded.values).unflatten(0, (2, 3)),
        "scales": torch.from_numpy(encoded.scales).unflatten(0, (2, 3)),
        "packed": torch.empty((0, *shape)),
    }
    for found in (widened(batch), looked_up(batch["rows"], batch["scales"], shape)):
        assert found.shape == (2, 3, *shape)
        np.testing.assert_array_equal(found.numpy().reshape(6, *shape).view("<u4"), expected)


@pytest.mark.parametrize("codec", ["none", "lz4"])
def test_segments_of_other_shapes_in_as_many_bytes_are_refused(tmp_path, codec):
    """(24,) and (5, 5) are two groups each; read as one another they would be other numbers without any error."""
    Corpus("int4", shape=(24,)).store(tmp_path / "s.zarr", range(5), codec=codec)
    store = Corpus("int4", shape=(5, 5)).store(tmp_path / "s.zarr", range(5, 10), codec=codec)
    positions = store.positions()
    for read in (
        lambda: store.gather("2", positions),
        lambda: store.gather_rows("2", positions),
        lambda: list(store.windows("2", positions, memory=None, seed=0)),
    ):
        with pytest.raises(DamageError, match="rows of shape"):
            read()


def test_a_segment_says_the_shape_of_its_rows(tmp_path):
    store = Corpus("int4", shape=(3, 7)).store(tmp_path / "s.zarr", range(5))
    (segment,) = Store.open(store.path).segments
    assert segment.row_shape("2") == store.row_shape("2") == (3, 7)
    assert (store.stored_shape("2"), store.row_bytes("2")) == ((18,), 22)
    name = "cuts/2/values"
    for dtype, packed in (("int4", None), ("int4", (3, 70)), ("int8", (3, 7))):
        specs = {**segment.specs, name: replace(segment.specs[name], packed=packed)}
        with pytest.raises(DamageError, match="expected"):
            check_specs(specs, segment.summary, dtype, "here")
