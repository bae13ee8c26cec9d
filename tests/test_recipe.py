"""The recipe decides the fingerprint, names what differs, and tells in which precision the trunk computes."""

from dataclasses import replace

import numpy as np
import pytest

from recycle_cli.errors import MismatchError
from recycle_cli.recipe import Recipe
from recycle_cli.settings import CorpusSettings, ModelSettings, PrecomputeSettings, PredictSettings, TrainingSettings
from recycle_cli.store import Store
from recycle_cli.verbs.finetune import Job, finetune
from recycle_cli.verbs.precompute import precompute
from recycle_cli.verbs.predict import predict
from tests.records import records, write_csv

RECIPE = Recipe("text", {"hidden_size": 32, "nested": {"a": 1}}, {"2": "aa", "3": "bb"}, "tok", 16)


def test_the_fingerprint_of_a_recipe_never_changes():
    assert RECIPE.fingerprint == "80f28cfd21ddb394e3bc44344789a0b4"


def test_json_keeps_a_recipe():
    assert Recipe.from_json(RECIPE.to_json()) == RECIPE
    assert Recipe.from_json(RECIPE.to_json()).fingerprint == RECIPE.fingerprint


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"modality": "image"}, "modality: text in the store, image asked for"),
        (
            {"architecture": {"hidden_size": 32, "nested": {"a": 2}}},
            "architecture.nested.a: 1 in the store, 2 asked for",
        ),
        ({"cuts": {"2": "aa"}}, "cuts: 2, 3 in the store, 2 asked for"),
        (
            {"cuts": {"2": "aa"}, "dtype": "int8"},
            "cuts: 2, 3 in the store, 2 asked for; dtype: float16 in the store, int8 asked for",
        ),
        ({"max_length": 8}, "max_length: 16 in the store, 8 asked for"),
        ({"dtype": "int8"}, "dtype: float16 in the store, int8 asked for"),
        (
            {"max_length": 8, "dtype": "int8"},
            "dtype: float16 in the store, int8 asked for; max_length: 16 in the store, 8 asked for",
        ),
        ({"architecture": {}, "dtype": "int8"}, "architecture.hidden_size: 32 in the store, nothing asked for"),
        ({"extra": {"precision": "bfloat16"}}, "extra.precision: nothing in the store, bfloat16 asked for"),
    ],
)
def test_a_difference_is_named_and_changes_the_fingerprint(change, named):
    other = replace(RECIPE, **change)
    assert RECIPE.difference(other) == named
    assert RECIPE.fingerprint != other.fingerprint


def test_equal_recipes_do_not_differ():
    assert RECIPE.difference(Recipe.from_json(RECIPE.to_json())) is None


def test_float32_goes_without_saying():
    assert RECIPE.computed_in("float32") == RECIPE
    assert RECIPE.computed_in("bfloat16").computed_in("float32") == RECIPE
    assert RECIPE.computed_in("bfloat16").precision == "bfloat16"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return CorpusSettings((str(write_csv(tmp_path_factory.mktemp("data") / "train.csv", records(30))),))


def stored(data, path, model):
    precompute(data, str(path), model, PrecomputeSettings(("2",), "float32"))
    store = Store.open(str(path))
    return store.gather_rows("2", np.arange(len(store)))[0]


def test_the_trunks_precision_is_part_of_the_recipe(data, tmp_path, tiny_bert):
    model = ModelSettings(str(tiny_bert), None, 16)
    narrow = replace(model, precision="bfloat16")
    exact, rounded = stored(data, tmp_path / "exact", model), stored(data, tmp_path / "rounded", narrow)
    assert not np.array_equal(exact, rounded)
    assert np.linalg.norm(exact - rounded) < 0.05 * np.linalg.norm(exact)
    with pytest.raises(MismatchError, match=r"extra\.precision: bfloat16 in the store, nothing asked for"):
        precompute(data, str(tmp_path / "rounded"), model, PrecomputeSettings(("2",), "float32"))


def test_misses_go_through_the_trunk_in_the_stores_precision_whatever_the_heads(data, tmp_path, tiny_bert):
    narrow = ModelSettings(str(tiny_bert), None, 16, precision="bfloat16")
    precompute(replace(data, limit=10), str(tmp_path / "store"), narrow, PrecomputeSettings(("2",), "float32"))
    job = Job(replace(data, limit=10), str(tmp_path / "run"), str(tmp_path / "store"), tensorboard=False)
    finetune(job, ModelSettings(), TrainingSettings(epochs=1))
    scoring = PredictSettings(write_back=True)
    arguments = (data, str(tmp_path / "run"), str(tmp_path / "store"))
    predict(*arguments, str(tmp_path / "first.csv"), ModelSettings(), scoring)
    predict(*arguments, str(tmp_path / "second.csv"), ModelSettings(), scoring)
    whole = stored(data, tmp_path / "whole", narrow)
    store = Store.open(str(tmp_path / "store"))
    assert len(store) == 30
    assert sorted(store.gather_rows("2", np.arange(30))[0].sum(1)) == pytest.approx(sorted(whole.sum(1)), abs=0.5)
