"""A batch that heads take in turn: widened once for them all, and anew only where one wrote into it."""

import pytest
import torch

from recycle_cli.batches import SharedBatch

ROWS = torch.arange(24.0).reshape(2, 3, 4)
LENGTHS = torch.tensor([3, 2])

in_both_modes = pytest.mark.parametrize("inference", [False, True], ids=["training", "evaluation"])


def batch(dtype=torch.float32):
    """Of inference mode where it is made in that: an evaluation moves its batches to the device there."""
    return {"rows": ROWS.to(dtype, copy=True), "lengths": LENGTHS.clone()}


@in_both_modes
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("heads", [1, 3])
def test_every_head_gets_the_rows_in_float32(inference, dtype, heads):
    with torch.inference_mode(inference):
        shared = SharedBatch(batch(dtype), heads)
        for _ in range(heads):
            found = shared.ready()
            assert found["rows"].dtype == torch.float32
            assert torch.equal(found["rows"], ROWS)
            assert torch.equal(found["lengths"], LENGTHS)


@in_both_modes
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_head_that_writes_into_the_rows_changes_them_for_no_other(inference, dtype):
    with torch.inference_mode(inference):
        shared = SharedBatch(batch(dtype), 3)
        first = shared.ready()["rows"]
        assert shared.ready()["rows"] is first
        first.zero_()
        again = shared.ready()["rows"]
        assert torch.equal(again, ROWS)
        assert shared.ready()["rows"] is again


def test_one_head_alone_costs_no_copy():
    given = batch()
    assert SharedBatch(given, 1).ready()["rows"] is given["rows"]


def test_raw_inputs_are_handed_on():
    given = {"input_ids": torch.ones(2, 3, dtype=torch.int64)}
    assert SharedBatch(given, 2).ready() is given
