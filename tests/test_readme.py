"""The README's main job, run as it stands but for the virtual environment: it ends well and beats chance by far."""

import json
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands(name="main"):
    """The `recycle` lines of the README's block of this name."""
    block = re.search(rf"<!-- {name} -->\n```sh\n(.*?)```", README, re.DOTALL)
    assert block, f"the README has no block {name}"
    lines = [line.removeprefix(".venv/bin/") for line in block[1].splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("recycle ")]


@pytest.fixture(scope="module")
def precomputed(recycle, tmp_path_factory, minilm):
    """A folder in which the first command of the main job has run, and what it said."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "sample_data").symlink_to(ROOT / "sample_data")
    return folder, recycle.json(*commands()[0], cwd=folder)


@pytest.mark.long
def test_the_main_job_of_the_readme_beats_chance_by_far(recycle, precomputed):
    folder, filled = precomputed
    assert filled["new_samples"] == 533
    finetuned, predicted = [recycle.json(*command, cwd=folder) for command in commands()[1:]]
    assert finetuned["metrics"]["macro_f1"] > 0.7
    assert predicted["hits"] == predicted["samples"] == 120
    assert predicted["metrics"] == pytest.approx(finetuned["metrics"], abs=1e-3)
    assert json.loads((folder / "run" / "recycle.json").read_text())["cut"] == "3"


@pytest.mark.long
def test_the_several_heads_of_the_readme_train(recycle, precomputed):
    (line,) = (line for line in README.splitlines() if "--heads sample_data" in line)
    report = recycle.json(*shlex.split(line)[1:], "--limit", 60, cwd=precomputed[0])
    assert [head["output"] for head in report["heads"]] == ["runs/plain", "runs/patient", "runs/lora"]


@pytest.mark.long
def test_the_images_of_the_readme_train_from_their_views(recycle, tmp_path):
    """With random weights, for want of a network: so it says nothing of their quality."""
    (tmp_path / "sample_data").symlink_to(ROOT / "sample_data")
    first, second, training, prediction = commands("images")
    without_network = ("--weights", "none")
    assert recycle.json(*first, *without_network, cwd=tmp_path)["new_samples"] == 120 * 5
    assert recycle.json(*second, *without_network, cwd=tmp_path)["new_samples"] == 60
    assert recycle.json(*training, "--epochs", 1, cwd=tmp_path)["store_hit_share"] == 1
    assert recycle.json(*prediction, cwd=tmp_path)["hits"] == 60
