"""A model with a single output that lies near zero is compared by what it is the sum of, and not by that output."""

import pytest
import torch
import transformers

from recycle_cli.errors import ModelError
from recycle_cli.models import Loaded, split
from recycle_cli.models.text.selfcheck import difference
from tests.conftest import tiny_config, tiny_tokenizer


def scorer(shift):
    """A scorer of texts whose outputs are all shifted so that those of the texts that it is proved on are near zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = tiny_config(num_labels=1, problem_type="regression")
        model = transformers.AutoModelForSequenceClassification.from_config(config).eval()
    with torch.no_grad():
        model.classifier.weight.mul_(shift)
        model.classifier.bias.zero_()
    return Loaded("scorer", model, tiny_tokenizer())


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e-7, 0.0])
def test_a_scorer_can_be_cut_however_small_its_output_is(scale):
    assert split(scorer(scale), ["2"], max_length=16, dtype="float32").cuts == ("2",)


def test_outputs_are_compared_by_no_less_than_a_share_of_the_rows():
    rows = torch.tensor([[4.0, -8.0]])
    assert difference(torch.tensor([1e-9]), torch.tensor([4e-7]), rows) == pytest.approx(1e-6, rel=0.01)
    assert difference(torch.tensor([1e-9]), torch.tensor([4e-7])) > 100
    assert difference(torch.tensor([2.0]), torch.tensor([2.1]), rows) == pytest.approx(0.05)


def test_what_changes_the_output_is_still_seen(monkeypatch):
    """A head that reads the ids, which rows do not hold."""
    loaded = scorer(1.0)
    forward = type(loaded.model).forward

    def reading(self, input_ids=None, **more):
        found = forward(self, input_ids=input_ids, **more)
        return (found[0] + 1e-3 * input_ids[:, :1].float(),)

    monkeypatch.setattr(type(loaded.model), "forward", reading)
    with pytest.raises(ModelError, match="cannot be cut at 2"):
        split(loaded, ["2"], max_length=16, dtype="float32")
