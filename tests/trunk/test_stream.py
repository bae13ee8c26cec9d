"""Batches by a budget of tokens, and rows to and from their stored types."""

import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recycle_cli.errors import DataError
from recycle_cli.keys import Sample
from recycle_cli.models import NamedModel
from recycle_cli.recipe import DTYPES
from recycle_cli.settings import ModelSettings
from recycle_cli.trunk import by_token_budget, prepared_ahead, restored, rows_of, windows


@given(st.lists(st.integers(1, 600), max_size=200), st.integers(1, 4000))
def test_batches_hold_every_sample_once_within_the_budget(lengths, budget):
    found = list(by_token_budget(np.array(lengths, dtype=np.int64), budget))
    assert sorted(place for batch in found for place in batch.tolist()) == list(range(len(lengths)))
    for batch in found:
        longest = max(lengths[place] for place in batch)
        assert len(batch) * longest <= budget or len(batch) == 1
    ordered = [lengths[place] for batch in found for place in batch]
    assert ordered == sorted(lengths, reverse=True)


def test_windows_cut_the_stream_and_read_no_further_than_asked():
    read = []

    def samples():
        for number in range(100):
            read.append(number)
            yield Sample(str(number), {"text": str(number)})

    stream = windows(samples(), 7)
    first = next(stream)
    assert len(read) == 7
    assert [sample.id for sample in first.samples] == [str(number) for number in range(7)]
    assert first.positions.tolist() == [-1] * 7
    assert [len(window.samples) for window in stream] == [7] * 13 + [2]


def test_windows_grow_from_a_small_first_one():
    samples = (Sample(str(number), {"text": str(number)}) for number in range(40))
    assert [len(window.samples) for window in windows(samples, 16, first=2)] == [2, 4, 8, 16, 10]


def test_the_next_window_is_prepared_while_one_is_computed(tiny_bert):
    halves = NamedModel(ModelSettings(str(tiny_bert))).open().split(("2",), "float32")
    begun, sizes = threading.Event(), []

    def wanted(window):
        sizes.append(len(window.samples))
        if len(sizes) == 2:
            begun.set()
        return np.arange(0, len(window.samples), 2)

    samples = (Sample(str(number), {"text": "the red cell " * (number + 1)}) for number in range(40))
    ready = prepared_ahead(samples, halves.preprocessor, 16, None, wanted, None)
    first = next(ready)
    assert begun.wait(30), "nothing is prepared before it is asked for"
    assert (first.places.tolist(), len(first.prepared), len(first.window.samples)) == ([0], 1, 1)
    second = next(ready)
    assert (second.places.tolist(), len(second.window.samples)) == ([0], 2)
    ready.close()
    assert sizes[:2] == [1, 2]


LENGTHS = np.array([3, 1, 5], dtype=np.int64)


ERRORS = [("float32", 0), ("float16", 2**-11), ("bfloat16", 2**-8), ("int8", 0.02), ("int4", 0.18)]


@pytest.mark.parametrize(("dtype", "error"), ERRORS)
def test_rows_come_back_without_their_padding(dtype, error):
    activations = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0))
    rows = rows_of(activations, LENGTHS, dtype)
    assert len(rows.values) == LENGTHS.sum()
    back = restored(rows, LENGTHS, dtype)
    assert back.shape == (3, 5, 8)
    for sample, length in enumerate(LENGTHS):
        largest = activations[sample, :length].abs().max()
        assert (back[sample, :length] - activations[sample, :length]).abs().max() <= error * largest
        assert not back[sample, length:].any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_not_finite_is_refused(dtype, value):
    activations = torch.zeros(3, 5, 8)
    activations[2, 4, 1] = value
    with pytest.raises(DataError):
        rows_of(activations, LENGTHS, dtype)


def test_float16_refuses_what_it_cannot_hold_and_ignores_the_padding():
    activations = torch.zeros(3, 5, 8)
    activations[1, 4, 0] = 1e9
    rows_of(activations, LENGTHS, "float16")
    activations[0, 0, 0] = 70000.0
    with pytest.raises(DataError, match="--dtype bfloat16"):
        rows_of(activations, LENGTHS, "float16")
    assert float(restored(rows_of(activations, LENGTHS, "bfloat16"), LENGTHS, "bfloat16").max()) == pytest.approx(
        7e4, rel=0.01
    )
