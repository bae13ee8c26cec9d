"""Rows taken from one cut to a later one are the rows that the trunk computes there."""

from itertools import combinations

import pytest
import torch

from recycle_cli.errors import UsageError
from recycle_cli.models import load, split
from tests.models.architectures import DECODERS, ENCODERS, SPANS, TOKENS, each_kind, random_per_row
from tests.models.test_parity import LENGTHS, batch_of, error, parts, stored


@pytest.mark.parametrize("model_type", each_kind([*ENCODERS, *DECODERS]))
def test_advanced_rows_are_the_trunks_own(model_type):
    model = parts(model_type)
    batch = batch_of(model)
    real = batch["attention_mask"].bool()
    rows = {cut: stored(some, real) for cut, some in model.trunk(batch).items()}
    for cut, later in combinations(model.cuts, 2):
        advanced = model.between(cut, later)(rows[cut], LENGTHS)
        assert advanced.shape == rows[later].shape
        assert error(rows[later][real], advanced[real]) <= 1e-6, (cut, later)


@pytest.mark.parametrize("model_type", ["bert", "convbert", "gpt2"])
def test_the_head_goes_on_from_advanced_rows(model_type):
    """In training mode too: the frozen blocks stay in eval, nothing has a gradient, and the rows can enter a graph."""
    model = parts(model_type)
    batch = batch_of(model)
    real = batch["attention_mask"].bool()
    rows = {cut: stored(some, real) for cut, some in model.trunk(batch).items()}
    quiet = model.between("1", "3")(rows["1"], LENGTHS)
    model.model.train()
    advanced = model.between("1", "3")(rows["1"], LENGTHS)
    assert torch.equal(quiet, advanced)
    assert advanced.is_inference()
    assert model.model.training
    model.head_from("3")(advanced, LENGTHS).sum().backward()
    model.model.zero_grad()
    model.model.eval()


@pytest.mark.parametrize("auto", [TOKENS, SPANS])
@pytest.mark.parametrize("model_type", ["bert", "convbert", "llama"])
def test_rows_of_models_with_an_output_a_row(auto, model_type):
    model = split(random_per_row(model_type, auto), ["1", "3"], max_length=32, dtype="float32")
    batch = batch_of(model)
    real = batch["attention_mask"].bool()
    rows = {cut: stored(some, real) for cut, some in model.trunk(batch).items()}
    assert error(rows["3"][real], model.between("1", "3")(rows["1"], LENGTHS)[real]) <= 1e-6


def test_a_cut_that_is_not_known_or_not_later_is_refused(tiny_bert):
    model = split(load(str(tiny_bert), labels=None), ["0", "1", "3"], max_length=32, dtype="float32")
    with pytest.raises(UsageError, match="cut '2': the model was split at 0, 1, 3"):
        model.between("1", "2")
    with pytest.raises(UsageError, match="rows at cut 3 cannot be taken to cut 1: expected a cut after 3"):
        model.between("3", "1")
    with pytest.raises(UsageError, match="rows at cut 3 cannot be taken to cut 3"):
        model.between("3", "3")
    with pytest.raises(UsageError, match="cut 0 has no rows"):
        model.between("0", "3")


def test_minilm(minilm):
    model = split(load(minilm, labels=None), ["2", "4", "6"], max_length=64, dtype="float32")
    batch = batch_of(model)
    real = batch["attention_mask"].bool()
    rows = {cut: stored(some, real) for cut, some in model.trunk(batch).items()}
    for later in ("4", "6"):
        assert torch.equal(model.between("2", later)(rows["2"], LENGTHS)[real], rows[later][real])
