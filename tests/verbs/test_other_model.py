"""A store with another model: the message names the models, and no cut that nobody typed."""

import json

import pytest

from tests.conftest import tiny_config
from tests.records import records, write_csv


@pytest.fixture(scope="module")
def place(recycle, tmp_path_factory, tiny_bert):
    """A store at a cut that is not the default, and a RUN from it."""
    folder = tmp_path_factory.mktemp("place")
    write_csv(folder / "data.csv", records(24))
    (folder / "mine").symlink_to(tiny_bert)
    recycle.json("precompute", "data.csv", "acts", "--model", "mine", "--cut", 3, "--max-length", 16, cwd=folder)
    options = ("--epochs", 1, "--no-tensorboard", "--output")
    recycle.json("finetune", "data.csv", "acts", *options, "run", cwd=folder)
    return folder


OTHERS = {"seed": ({}, 9), "wide": ({"intermediate_size": 40}, 0), "flat": ({"num_hidden_layers": 2}, 0)}


@pytest.mark.parametrize("other", list(OTHERS))
def test_the_models_are_named(recycle, place, make_tiny, tiny_bert, other):
    fields, seed = OTHERS[other]
    model = make_tiny(other, tiny_config(**fields), seed=seed, bare=True)
    commands = [("finetune", "data.csv", "acts", "--output", "none")]
    if other != "seed":  # of the same architecture the cut alone is compared, which is another by default
        commands.append(("precompute", "data.csv", "acts"))
    for command in commands:
        done = recycle(*command, "--model", model, "--max-length", 16, cwd=place)
        assert (done.code, done.err.count("\n")) == (4, 1), done.err
        assert str(tiny_bert) in done.err
        assert str(model) in done.err
        assert "cuts" not in done.err


def test_the_same_model_at_another_cut_is_told_by_the_cut_of_the_store(recycle, place):
    done = recycle("precompute", "data.csv", "acts", "--model", "mine", "--max-length", 16, cwd=place)
    assert (done.code, done.err.count("\n")) == (4, 1)
    assert "take --cut 3, with which it was made, or another store" in done.err


def test_a_run_of_another_model_is_told_by_its_model(recycle, place, make_tiny, tiny_bert):
    model = make_tiny("other", tiny_config(), seed=9, bare=True)
    recycle.json("precompute", "data.csv", "others", "--model", model, "--cut", 3, "--max-length", 16, cwd=place)
    done = recycle("predict", "data.csv", "run", "--store", "others", cwd=place)
    assert (done.code, done.err.count("\n")) == (4, 1)
    assert f"made with the model {model}, not with {tiny_bert} (their weights differ)" in done.err


def test_labels_that_look_measured_are_no_classes_in_silence(recycle, place, tmp_path):
    rows = records(130)
    cases = {
        "whole": lambda n: 3 * n,
        "fractions": lambda n: n % 25 / 4,
        "classes": lambda n: n,
        "few": lambda n: n % 3 - 1,
    }
    options = ("--epochs", 1, "--no-tensorboard", "--cut", 4, "--model", "mine", "--max-length", 8)
    for name, number in cases.items():
        path = write_csv(tmp_path / f"{name}.csv", [{**one, "label": number(n)} for n, one in enumerate(rows)])
        done = recycle("finetune", path, *options, "--output", tmp_path / name, "--json", cwd=place)
        if name in ("classes", "few"):
            assert len(done.json["classes"]) == (130 if name == "classes" else 3)
            continue
        assert (done.code, done.err.count("\n")) == (3, 1)
        assert "different numbers, such as 0" in done.err
        assert "--task regression learns numbers" in done.err
        assert json.loads(done.out)["error"]["kind"] == "DataError"
        named = ("--numbers-as-classes", "--output", tmp_path / f"{name}-named")
        assert len(recycle.json("finetune", path, *options, *named, cwd=place)["classes"]) in (130, 25)
