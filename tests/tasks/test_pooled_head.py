"""The pooled head: on models with a class for classification and without, and on encoders of encoder-decoder models."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from recycle_cli.errors import ModelError, UsageError
from recycle_cli.models import NamedModel
from recycle_cli.settings import (
    AdapterSettings,
    ClassificationSettings,
    CorpusSettings,
    HeadLayerSettings,
    ModelSettings,
    RegressionSettings,
)
from recycle_cli.tasks import Classification
from tests.conftest import tiny_config, tiny_tokenizer
from tests.records import records, write_csv
from tests.tasks.regressions import numbered_texts
from tests.trainings import SETTINGS, Tried, learns_as_in_place, stopped_after

MLP, CLS = HeadLayerSettings("mlp"), HeadLayerSettings("mlp", "cls")
PAGE = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text(encoding="utf-8")

MODELS = {
    "bert": {},
    "t5": {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 4, "num_heads": 4, "decoder_start_token_id": 0},
    "bart": {"encoder_layers": 4, "decoder_layers": 2, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "d_model": 32},
    # transformers has no class of it that classifies texts
    "bert-generation": {},
}


@pytest.fixture
def saved(tmp_path):
    """Save a tiny bare model of a kind."""

    def save(kind):
        folder = tmp_path / "model"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            transformers.AutoModel.from_config(tiny_config(kind, **MODELS[kind])).save_pretrained(folder)
        tiny_tokenizer().save_pretrained(folder)
        return folder

    return save


def classes(folder, model, layers=MLP, **more):
    paths = [str(write_csv(folder / f"{seed}.csv", records(36 - 20 * seed, seed))) for seed in (0, 1)]
    train, test = (CorpusSettings((path,)) for path in paths)
    settings = ClassificationSettings(layers=layers, **more)
    return Tried("text-classification", settings, folder, ModelSettings(str(model), None, 16), train, test)


def loaded_by_the_page(run):
    """What the lines of docs/tasks.md make of a RUN."""
    code = re.search(r"<!-- pooled -->\n```python\n(.*?)```", PAGE, re.DOTALL)
    names = {}
    exec(code[1], names)  # noqa: S102 - the page's own lines
    return names["load"](str(run))


@pytest.mark.parametrize(("kind", "layers"), [("bert", CLS), ("t5", MLP), ("bart", MLP), ("bert-generation", CLS)])
def test_it_learns_from_a_store_as_in_place_and_loads_by_the_lines_of_the_page(saved, tmp_path, kind, layers):
    tried = classes(tmp_path, saved(kind), layers)
    tried.fill()
    report, _ = learns_as_in_place(tried)
    hits, stored = tried.score("stored", tried.store)
    misses, plain = tried.score("stored")
    assert (hits.misses, misses.hits) == (0, 0)
    assert hits.metrics == pytest.approx(report.metrics, abs=1e-5)
    outputs, labels = loaded_by_the_page(tmp_path / "stored")
    assert labels == report.classes
    scores = torch.softmax(outputs([row["text"] for row in records(16, 1)]), dim=1).numpy()
    for rows in (stored, plain):
        found = [[row[f"score_{label}"] for label in labels] for row in rows]
        np.testing.assert_allclose(found, scores, atol=1e-4)


def test_a_regression_and_several_labels_take_it_too(saved, tmp_path):
    model = ModelSettings(str(saved("bert-generation")), None, 24)
    path = write_csv(tmp_path / "numbers.csv", numbered_texts(24))
    data = CorpusSettings((str(path),))
    tried = Tried("regression", RegressionSettings(layers=MLP), tmp_path, model, data, data)
    tried.fill()
    report = tried.fit("run")
    scored, rows = tried.score("run", tried.store)
    assert scored.metrics == pytest.approx(report.metrics, abs=1e-5)
    outputs, _ = loaded_by_the_page(tmp_path / "run")
    found = outputs([row["text"] for row in numbered_texts(24)])[:, 0].numpy()
    np.testing.assert_allclose([row["number"] for row in rows], found, atol=1e-4)
    several = classes(tmp_path, saved("bert"), multi_label=True)
    several.fit("several", replace(SETTINGS, epochs=1), cut="2")
    assert json.loads((tmp_path / "several" / "head" / "config.json").read_text())["problem_type"].startswith("multi")
    assert several.score("several")[0].metrics is not None


def test_it_resumes_exactly(saved, tmp_path):
    tried = classes(tmp_path, saved("bert"))
    untouched = tried.fit("untouched", cut="2")
    with stopped_after(1):
        tried.fit("resumed", cut="2")
    with pytest.raises(UsageError, match="head_pooling was mean"):
        replace(tried, settings=ClassificationSettings(layers=CLS)).fit("resumed", cut="2", resume=True)
    assert tried.fit("resumed", cut="2", resume=True).metrics == untouched.metrics
    assert tried.losses("resumed") == tried.losses("untouched")


@pytest.mark.parametrize("adapter", [AdapterSettings("lora"), AdapterSettings("bottleneck", save="apart")])
def test_adapters_go_with_it(saved, tmp_path, adapter):
    pytest.importorskip("peft")
    tried = classes(tmp_path, saved("bart"))
    tried.fill()
    report = tried.fit("run", replace(SETTINGS, adapter=adapter))
    scored, _ = tried.score("run", tried.store)
    assert scored.metrics == pytest.approx(report.metrics, abs=1e-5)


def test_a_run_goes_on_with_its_head_whatever_the_order_of_its_labels(saved, tmp_path):
    tried = classes(tmp_path, saved("bert"))
    tried.fit("run", cut="2")
    about = tmp_path / "run" / "head" / "config.json"
    kept = json.loads(about.read_text())
    layer = tried_layer(kept["labels"])
    again = NamedModel(ModelSettings(str(tmp_path / "run"))).open(layer).loaded
    turned = NamedModel(ModelSettings(str(tmp_path / "run"))).open(tried_layer(kept["labels"][::-1])).loaded
    assert not again.missing
    assert torch.equal(again.model.layer.second.weight, turned.model.layer.second.weight.flip(0))
    other = NamedModel(ModelSettings(str(tmp_path / "run"))).open(tried_layer(["x", "y", "z"])).loaded
    assert other.missing
    about.write_text("{}")
    with pytest.raises(ModelError, match="head cannot be read"):
        NamedModel(ModelSettings(str(tmp_path / "run"))).open(layer)


def tried_layer(labels):
    return Classification(ClassificationSettings(layers=MLP)).layer(labels)


def test_models_that_need_it_say_so(saved, tmp_path):
    tried = classes(tmp_path, saved("bert-generation"), HeadLayerSettings())
    with pytest.raises(ModelError, match=r"no AutoModelForSequenceClassification.*so does `--head mlp`"):
        tried.fit("run", cut="2")
    tried = classes(tmp_path, saved("t5"), HeadLayerSettings())
    with pytest.raises(ModelError, match="or add --head mlp, which takes the encoder alone"):
        tried.fit("run", cut="2")


def test_what_has_no_effect_is_refused(saved, tmp_path):
    tried = classes(tmp_path, saved("bert"), HeadLayerSettings("own", "cls"))
    with pytest.raises(UsageError, match="--head-pooling cls: only --head mlp pools"):
        tried.fit("run", cut="2")
