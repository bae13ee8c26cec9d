"""Texts to embeddings: cut like any text model, from the same stores, and loaded by sentence-transformers."""

import json

import pytest
import torch
from torch import nn

from recycle_cli.errors import ModelError
from recycle_cli.keys import Sample
from recycle_cli.models import load, split
from recycle_cli.models.text.embedder import POOLINGS, TextEmbedder, load_embedder
from recycle_cli.settings import EmbeddingSettings
from tests.conftest import tiny_config
from tests.models.architectures import DECODERS, ENCODERS, each_kind

TEXTS = ["the cell uses a new method", "bad data", "this paper extends earlier work on red and green protein gene data"]
SAMPLES = [Sample(str(number), {"text": text}) for number, text in enumerate(TEXTS)]
LINEAR = EmbeddingSettings("linear", 5, 0.0)


def vectors(model):
    return model.full(model.collate(model.prepare(SAMPLES)))


@pytest.mark.parametrize(
    "kind", each_kind(["bert", "distilbert", "electra", "deberta-v2", "modernbert", "albert", "gpt2", "qwen2"])
)
def test_an_encoder_is_cut_as_its_classifier_is_and_shares_its_stores(make_tiny, kind):
    folder = str(make_tiny(kind, tiny_config(kind, **(ENCODERS | DECODERS)[kind]), bare=True))
    cuts = ["0", "2", "100%"]
    embedder = split(load_embedder(folder, LINEAR), cuts, max_length=16, dtype="float32")
    classifier = split(load(folder, labels=["a", "b"]), cuts, max_length=16, dtype="float32")
    assert embedder.recipe.difference(classifier.recipe) is None
    batch = embedder.collate(embedder.prepare(SAMPLES))
    with torch.no_grad():
        whole = embedder.full(batch)
        rows = embedder.trunk(batch)
        for cut in ("2", "4"):
            assert torch.allclose(embedder.head_from(cut)(rows[cut], batch["attention_mask"].sum(1)), whole, atol=1e-5)
            names = {name for name, _ in embedder.head_parameters(cut)}
            assert {"layer.linear.weight", "layer.linear.bias"} <= names
    assert whole.shape == (3, 5)


@pytest.mark.parametrize("settings", [LINEAR, EmbeddingSettings(), EmbeddingSettings("linear")])
def test_a_saved_embedder_gives_the_same_vectors(tiny_bert, tmp_path, settings):
    loaded = load_embedder(str(tiny_bert), settings)
    before = vectors(split(loaded, ["2"], max_length=16, dtype="float32"))
    loaded.save(tmp_path, 16)
    again = load_embedder(str(tmp_path), None)
    assert len(again.labels) == len(loaded.labels) == (settings.size or 32)
    assert not again.missing
    assert torch.allclose(vectors(split(again, ["2"], max_length=16, dtype="float32")), before, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_sentence_transformers_loads_it(tiny_bert, tmp_path):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    loaded = load_embedder(str(tiny_bert), EmbeddingSettings())
    nn.init.constant_(loaded.model.layer.gate, 0.5)
    loaded.save(tmp_path, 16)
    theirs = sentence_transformers.SentenceTransformer(str(tmp_path), device="cpu")
    ours = nn.functional.normalize(vectors(split(loaded, ["2"], max_length=16, dtype="float32")), dim=1)
    assert torch.allclose(torch.from_numpy(theirs.encode(TEXTS)), ours, atol=1e-5)


def test_poolings_see_the_tokens_and_not_the_padding():
    rows = torch.tensor([[[1.0, 4.0], [3.0, 2.0], [100.0, -100.0]]])
    mask = torch.tensor([[1, 1, 0]])
    found = {name: pool(rows, mask)[0].tolist() for name, pool in POOLINGS.items()}
    assert found == {"mean": [2.0, 3.0], "max": [3.0, 4.0], "cls": [1.0, 4.0], "lasttoken": [3.0, 2.0]}


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        (None, "mean"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode": "lasttoken"}, "lasttoken"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, ModelError),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, ModelError),
        ({"pooling_mode": "weightedmean"}, ModelError),
    ],
)
def test_the_pooling_is_the_checkpoints_own(make_tiny, config, pooling):
    folder = make_tiny("bert", tiny_config(), bare=True)
    if config is not None:
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(config))
    if pooling is ModelError:
        with pytest.raises(ModelError, match=r"pools by .*expected one of mean"):
            load_embedder(str(folder), LINEAR)
        return
    model = load_embedder(str(folder), LINEAR).model
    assert isinstance(model, TextEmbedder)
    assert model.pooling == pooling


def test_a_model_without_an_embedding_layer_has_none_of_its_own(tiny_bert):
    with pytest.raises(ModelError, match=r"2_Dense.*train the run again"):
        load_embedder(str(tiny_bert), None)


def test_the_new_layer_is_of_the_seed(tiny_bert):
    one, same, other = (
        load_embedder(str(tiny_bert), LINEAR, seed=seed).model.layer.linear.weight for seed in (0, 0, 1)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
