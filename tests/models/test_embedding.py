"""The layers that make embeddings: their formulas, merged into one linear layer, in any model's place for one."""

import pytest
import torch
from torch import nn

from recycle_cli.errors import ModelError, UsageError
from recycle_cli.models.embedding import SkipEmbedding, merge_embedding, new_embedding, put_embedding
from recycle_cli.settings import EmbeddingSettings

X = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))


def test_a_skip_connection_is_its_formula_and_begins_near_the_identity():
    layer = SkipEmbedding(8, 0.3, 0.2).eval()
    gate = torch.sigmoid(torch.tensor(-4.0))
    expected = X + gate * (X @ layer.linear.weight.T + layer.linear.bias)
    assert torch.allclose(layer(X), expected, atol=1e-6)
    assert torch.nn.functional.cosine_similarity(layer(X), X).min() > 0.999


def test_dropout_meets_the_vector_before_both_paths_and_the_second_the_trained_path_alone():
    """With W = 0 and b = 0 the outcome is x', and with x' undropped the skipped path stays whole."""
    torch.manual_seed(0)
    both = SkipEmbedding(8, 0.5, 0.0).train()
    nn.init.zeros_(both.linear.weight)
    nn.init.zeros_(both.linear.bias)
    y = both(torch.ones(1000, 8))
    assert set(y.flatten().tolist()) == {0.0, 2.0}
    one = SkipEmbedding(8, 0.0, 0.5).train()
    nn.init.eye_(one.linear.weight)
    nn.init.zeros_(one.linear.bias)
    nn.init.constant_(one.gate, 100.0)
    assert set(one(torch.ones(1000, 8)).flatten().tolist()) == {1.0, 3.0}


@pytest.mark.parametrize("settings", [EmbeddingSettings(), EmbeddingSettings("linear", 3), EmbeddingSettings("linear")])
def test_merged_is_one_linear_layer_with_the_same_outputs(settings):
    layer = new_embedding(8, settings, seed=0)
    if isinstance(layer, SkipEmbedding):
        nn.init.constant_(layer.gate, 0.7)
    merged = layer.merged()
    assert type(merged) is nn.Linear
    assert torch.allclose(merged(X), layer(X), atol=1e-6)


def test_a_skip_connection_keeps_the_width():
    with pytest.raises(UsageError, match=r"--embedding-size 4.*8 here.*--embedding linear"):
        new_embedding(8, EmbeddingSettings("skip", 4), seed=0)


def test_it_takes_the_place_of_the_classifier_and_is_merged_there():
    model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Sequential(nn.Dropout(), nn.Linear(6, 3)))
    assert put_embedding(model, EmbeddingSettings("linear", 4), classes=3, seed=0) == ("2.1", 4)
    model.eval()
    before = model(X)
    assert before.shape == (5, 4)
    merge_embedding(model)
    assert type(model[2][1]) is nn.Linear
    assert torch.allclose(model(X), before)


def test_a_model_that_ends_otherwise_is_refused():
    with pytest.raises(ModelError, match="no linear layer"):
        put_embedding(nn.Sequential(nn.Conv2d(3, 4, 1)), EmbeddingSettings(), classes=4, seed=0)
