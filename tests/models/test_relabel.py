"""A checkpoint's classifier is kept by the names of its classes, not by their number."""

import pytest
import torch

from recycle_cli.models import load
from tests.conftest import tiny_config

OWN = ("art", "bio", "code")


@pytest.fixture(params=["bert", "roberta", "gpt2", "electra"])
def trained(request, make_tiny):
    fields = {"id2label": dict(enumerate(OWN)), "label2id": {name: number for number, name in enumerate(OWN)}}
    fields |= {"embedding_size": 16} if request.param == "electra" else {}
    return str(make_tiny("trained", tiny_config(request.param, **fields)))


def logits(loaded):
    with torch.no_grad():
        return loaded.model(torch.tensor([[2, 7, 9, 11, 3]])).logits[0]


def test_the_same_names_in_another_order_keep_their_scores(trained, capsys):
    before, after = load(trained, labels=None), load(trained, labels=["code", "art", "bio"])
    torch.testing.assert_close(logits(after), logits(before)[[2, 0, 1]])
    assert after.labels == ("code", "art", "bio")
    assert not after.missing
    torch.testing.assert_close(logits(load(trained, labels=list(OWN))), logits(before))
    assert capsys.readouterr().err.count("made anew") == 0


def test_other_names_get_a_new_layer_from_the_seed_and_that_is_said(trained, capsys):
    before = load(trained, labels=None)
    one, same, other = (load(trained, labels=["art", "bio", "law"], seed=seed) for seed in (1, 1, 2))
    assert torch.equal(logits(one), logits(same))
    assert not torch.equal(logits(one), logits(other))
    assert not torch.equal(logits(one), logits(before))
    assert one.missing
    own = dict(before.model.named_parameters())
    for name, parameter in one.model.named_parameters():
        if parameter.any():  # a new bias is zero, as the old one is
            assert torch.equal(parameter, own[name]) is (name not in one.missing)
    said = [line for line in capsys.readouterr().err.splitlines() if "made anew" in line]
    assert len(said) == 3
    assert "its classes (art, bio, code) are not those of the data (art, bio, law)" in said[0]
