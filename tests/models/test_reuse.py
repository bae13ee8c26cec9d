"""Another model's rows: matched token by token, and added before the first block of any architecture."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from recycle_cli.errors import UsageError
from recycle_cli.keys import Sample
from recycle_cli.models.network import Network
from recycle_cli.models.text.reuse import DIVISOR, REUSED, ReusingInputs, reusing
from recycle_cli.models.text.row_alignment import matching, means
from recycle_cli.models.text.split import split
from tests.conftest import WORDS
from tests.models.architectures import DECODERS, ENCODERS, each_kind, random_model

TEXTS = [" ".join(WORDS[:9]), " ".join(WORDS[3:7]), WORDS[0]]


def spans(*rows):
    return np.array(rows, dtype=np.int64)


def test_a_piece_has_the_rows_that_share_a_character_with_it():
    words = spans((-1, 0, 0), (0, 0, 5), (0, 6, 9), (-1, 0, 0))
    halves = spans((-1, 0, 0), (0, 0, 3), (0, 3, 5), (0, 6, 9), (-1, 0, 0))
    assert matching(words, halves).tolist() == [[0, 1], [1, 3], [3, 4], [4, 5]]
    assert matching(halves, words).tolist() == [[0, 1], [1, 2], [1, 2], [2, 3], [3, 4]]


def test_a_piece_over_two_has_both_and_one_beyond_the_others_has_them_all():
    ours = spans((0, 0, 4), (0, 4, 8), (0, 20, 22))
    theirs = spans((0, 0, 3), (0, 3, 6), (0, 6, 8))
    assert matching(ours, theirs).tolist() == [[0, 2], [1, 3], [0, 3]]


def test_the_texts_of_a_pair_are_kept_apart():
    ours = spans((-1, 0, 0), (0, 0, 2), (-1, 0, 0), (1, 0, 2), (-1, 0, 0))
    theirs = spans((0, 0, 2), (1, 0, 1), (1, 1, 2))
    # Special tokens of which the other side has another number have all rows.
    assert matching(ours, theirs).tolist() == [[0, 3], [0, 1], [0, 3], [1, 3], [0, 3]]


def test_a_piece_without_a_character_belongs_to_none():
    ours, theirs = spans((0, 0, 2), (0, 2, 2), (0, 2, 4)), spans((0, 0, 2), (0, 1, 1), (0, 2, 4))
    assert matching(ours, theirs).tolist() == [[0, 1], [0, 3], [2, 3]]


def test_the_mean_of_one_row_is_that_row():
    values = torch.randn(6, 3)
    found = means(values, np.array([[2, 3], [0, 1], [1, 5], [0, 6]]))
    assert found[:2].equal(values[[2, 0]])
    torch.testing.assert_close(found[2:], torch.stack([values[1:5].mean(0), values.mean(0)]))


@dataclass(frozen=True)
class Invented:
    """Source rows that are a function of the sample's length alone, cut into tokens as `preprocessor` does."""

    preprocessor: object
    width = 7
    fingerprint = "invented"
    about = {"model": "invented"}  # noqa: RUF012

    def find(self, samples):
        return np.arange(len(samples), dtype=np.int64)

    def rows(self, places, lengths, misses):
        return torch.cat([torch.sin(torch.arange(length * 7.0)).view(length, 7) for length in lengths.tolist()])


def halves_of(name):
    loaded = random_model(name)
    plain = split(loaded, ["0"], max_length=24, dtype="float32")
    network = Network(loaded, lambda cuts, dtype: split(loaded, cuts, max_length=24, dtype=dtype), lambda cut, _: cut)
    made = reusing(network, Invented(plain.preprocessor), seed=0)
    return made, plain, made.split(["0"], "float32")


@pytest.mark.parametrize("name", each_kind([*ENCODERS, *DECODERS]))
def test_what_is_added_enters_before_the_first_block_of_any_architecture(name):
    made, plain, halves = halves_of(name)
    batch = halves.collate(halves.prepare([Sample(str(n), {"text": text}) for n, text in enumerate(TEXTS)]))
    ordinary = {key: one for key, one in batch.items() if key != REUSED}
    bridge = made.loaded.bridge
    with torch.no_grad():
        before = plain.full(ordinary)
        changed = halves.full(batch)
        bridge.second.weight.zero_()
        bridge.second.bias.zero_()
        torch.testing.assert_close(halves.full(batch), before)
        assert not torch.allclose(changed, before, atol=1e-3)
        torch.testing.assert_close(plain.full(ordinary), before)  # nothing stays behind in the model
    halves.full(batch).sum().backward()
    trained = dict(halves.head_parameters("0"))
    assert {f"recycle_reuse.second.{kind}" for kind in ("weight", "bias")} <= trained.keys()
    assert bridge.second.weight.grad.abs().max() > 0


def test_it_is_the_papers_formula():
    """BERT by hand: the embeddings, and a tenth of two layers with a ReLU between them."""
    made, _, halves = halves_of("bert")
    batch = halves.collate(halves.prepare([Sample("0", {"text": TEXTS[0]})]))
    bridge, bert = made.loaded.bridge, halves.model.bert
    assert (bridge.first.out_features, DIVISOR) == (1024, 10)
    with torch.no_grad():
        rows = bert.embeddings(batch["input_ids"], token_type_ids=batch["token_type_ids"])
        rows = rows + bridge.second(bridge.first(batch[REUSED]).clamp_min(0)) / 10
        for block in bert.encoder.layer:
            rows = block(rows)
        by_hand = halves.model.classifier(bert.pooler(rows))
        torch.testing.assert_close(halves.full(batch), by_hand, rtol=1e-5, atol=1e-5)


def test_it_can_be_cut_at_0_alone():
    made, _, _ = halves_of("bert")
    with pytest.raises(UsageError, match=r"--cut 2: with --reuse the whole model trains \(cut 0\)"):
        made.split(["2"], "float32")


def test_the_digest_knows_the_source():
    _, plain, halves = halves_of("bert")
    assert isinstance(halves.preprocessor, ReusingInputs)
    assert halves.recipe.preprocessor != plain.recipe.preprocessor
    assert halves.recipe.extra["reuse"] == "invented"
