"""A store and a RUN made by the version before are read by this one.

`tests/kept` holds what that version made of a model of two blocks: a float16 store of train.csv and test.csv at both
cuts, RUNs trained from it at cut 1, the predictions that they gave with it, and a training that was stopped after its
first epoch. The folder of the model that all of them name, /models/tiny, is now `model`.
"""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from recycle_cli.errors import StoreError, UsageError
from recycle_cli.settings import (
    AdapterSettings,
    ClassificationSettings,
    CorpusSettings,
    HeadSettings,
    ModelSettings,
    PrecomputeSettings,
    PredictSettings,
    TrainingSettings,
)
from recycle_cli.store import Store, verify
from recycle_cli.verbs.finetune import Job, finetune, finetune_heads
from recycle_cli.verbs.precompute import precompute
from recycle_cli.verbs.predict import predict
from tests.trainings import log_of

KEPT = Path(__file__).parent / "kept"
MODEL = ModelSettings("model", None, 16)
SETTINGS = TrainingSettings(epochs=3, batch_size=8, learning_rate=5e-3)
BOTTLENECK = AdapterSettings("bottleneck", save="apart", width=4)
SEVERAL = ClassificationSettings(multi_label=True)
TRAININGS = {
    "classes": ({"evaluation": CorpusSettings(("test.csv",))}, SETTINGS),
    "tags": ({"data": CorpusSettings(("tags.jsonl",))}, replace(SETTINGS, task=SEVERAL)),
    "groups": ({"task": "similarity"}, replace(SETTINGS, batch_size=12)),
    "bottleneck": ({}, replace(SETTINGS, adapter=BOTTLENECK)),
}
"""How each RUN was trained: what its job has of its own, and its settings."""


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch):
    """A copy of the files, in which the test runs: the old version named them from there."""
    shutil.copytree(KEPT, tmp_path / "kept")
    monkeypatch.chdir(tmp_path / "kept")


def job(output, **changes):
    """A training from the old store at cut 1, by the name that its model has now."""
    usual = Job(CorpusSettings(("train.csv",)), output, "acts.zarr", cut="1", model_named=True, tensorboard=False)
    return replace(usual, **changes)


def rows(path):
    """A prediction file's records, numbers as such."""
    text = Path(path).read_text()
    if path.endswith(".jsonl"):
        return [json.loads(line) for line in text.splitlines()]
    scored = csv.DictReader(text.splitlines())
    return [{name: float(one) if "score" in name else one for name, one in row.items()} for row in scored]


def test_precompute_finds_everything_in_the_old_store():
    fingerprint = json.loads(Path("classes/recycle.json").read_text())["fingerprint"]
    corpus = CorpusSettings(("train.csv", "test.csv"))
    filled = precompute(corpus, "acts.zarr", MODEL, PrecomputeSettings(("1", "2"), "float16"))
    assert (filled.new_samples, filled.reused_samples) == (0, 90)
    assert filled.fingerprint == Store.open("acts.zarr").fingerprint == fingerprint


def test_the_old_store_is_found_whole():
    found = verify("acts.zarr")
    assert (found["segments"], found["damaged"]) == (2, [])


@pytest.mark.parametrize("output", ["classes.csv", "tags.csv", "groups.jsonl", "bottleneck.csv"])
@pytest.mark.parametrize(("store", "hits", "rounding"), [("acts.zarr", 30, 1e-5), (None, 0, 2e-3)])
def test_an_old_run_predicts_as_it_did(output, store, hits, rounding):
    """The kept predictions were made of float16 rows; without the store they are not rounded."""
    test, run = CorpusSettings(("test.csv",)), output.partition(".")[0]
    report = predict(test, run, store, f"new-{output}", ModelSettings(), PredictSettings())
    assert report.hits == hits
    for found, before in zip(rows(f"new-{output}"), rows(output), strict=True):
        assert found == {
            name: one if isinstance(one, str) else pytest.approx(one, abs=rounding) for name, one in before.items()
        }


@pytest.mark.parametrize("run", list(TRAININGS))
def test_a_training_from_the_old_store_takes_the_steps_that_it_took(run):
    """Targets, new layers, the order of the samples and dropout are what they were."""
    changes, settings = TRAININGS[run]
    finetune(job("again", **changes), MODEL, settings)
    same_steps("again", run)


def test_a_head_among_several_takes_the_steps_that_it_took():
    finetune_heads(job("again"), MODEL, [HeadSettings("plain", SETTINGS)])
    same_steps("again/plain", "heads/plain")


def same_steps(run, before):
    """The same steps and evaluations, equal but for the rounding of another machine."""
    for line, old in zip(log_of(run), log_of(before), strict=True):
        old["epoch"] += "loss" in old  # it counted the epochs of steps from 0
        evaluation = old.pop("evaluation", {})
        assert line.pop("evaluation", {}) == pytest.approx(evaluation, rel=1e-5)
        assert line == pytest.approx(old, rel=1e-5)


@pytest.fixture
def moved():
    """The finished head, which names the model as it is named now."""
    about = Path("heads/plain/recycle.json")
    about.write_text(about.read_text().replace("/models/tiny", MODEL.name))


NEW = HeadSettings("new", replace(SETTINGS, epochs=1))


@pytest.mark.usefixtures("moved")
def test_a_resume_takes_a_head_that_the_old_version_finished():
    before = Path("heads/plain/model.safetensors").read_bytes()
    report = finetune_heads(job("heads", resume=True), MODEL, [HeadSettings("plain", SETTINGS), NEW])
    assert [head["name"] for head in report.heads] == ["plain", "new"]
    assert report.heads[0]["metrics"] == {"train_loss": log_of("heads/plain")[-1]["loss"]}
    assert Path("heads/plain/model.safetensors").read_bytes() == before


@pytest.mark.usefixtures("moved")
def test_a_resume_with_other_settings_than_the_old_version_had_is_refused():
    other = HeadSettings("plain", replace(SETTINGS, learning_rate=1e-3))
    with pytest.raises(UsageError, match=r"plain: learning_rate was 0\.005 when the run began and is 0\.001 now"):
        finetune_heads(job("heads", resume=True), MODEL, [other, NEW])
    assert not Path("heads/new").exists()


def test_a_training_that_the_old_version_began_is_not_taken_up():
    with pytest.raises(StoreError, match=r"made by another version of recycle.*finish .*that version.*--overwrite"):
        finetune(job("unfinished", resume=True), MODEL, SETTINGS)
    assert len(log_of("unfinished")) == 8
    finetune(job("unfinished", overwrite=True), MODEL, SETTINGS)
    same_steps("unfinished", "heads/plain")
