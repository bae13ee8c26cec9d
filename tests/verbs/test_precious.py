"""No command writes over what it reads, nor over what nobody can tell to be its own; each case leaves all as it was."""

import json
import shutil

import pytest

from tests.records import records, write_csv

TRAINING = ("--epochs", 1, "--no-tensorboard")


@pytest.fixture(scope="module")
def place(recycle, tiny_bert, tmp_path_factory):
    """Corpora, a store, a RUN, links to them, a thesis; all commands run in this folder."""
    folder = tmp_path_factory.mktemp("precious")
    write_csv(folder / "d.csv", records(12))
    write_csv(folder / "dev.csv", records(6))
    (folder / "thesis.txt").write_text("years of work")
    recycle.json("precompute", "d.csv", "s.zarr", "--model", tiny_bert, "--cut", 2, "--max-length", 16, cwd=folder)
    recycle.json("finetune", "d.csv", "s.zarr", "--output", "run", *TRAINING, cwd=folder)
    (folder / "link.csv").symlink_to("d.csv")
    (folder / "hard.csv").hardlink_to(folder / "d.csv")
    (folder / "other").symlink_to(".", target_is_directory=True)
    (folder / "linked.zarr").symlink_to("s.zarr", target_is_directory=True)
    return folder


def content(folder):
    """All files below, byte for byte."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


PREDICTING = ("predict", "d.csv", "run")
REFUSED = {
    "the corpus": (*PREDICTING, "--output", "d.csv"),
    "the corpus by another name": (*PREDICTING, "--output", "run/../d.csv"),
    "the corpus through a link": (*PREDICTING, "--output", "link.csv"),
    "the corpus through a folder's link": (*PREDICTING, "--output", "other/d.csv"),
    "the corpus as a hard link": (*PREDICTING, "--output", "hard.csv"),
    "what a link leads to": ("predict", "link.csv", "run", "--output", "d.csv"),
    "one of several": ("predict", "d.csv", "dev.csv", "run", "--output", "dev.csv"),
    "the RUN's log": (*PREDICTING, "--output", "run/metrics.jsonl"),
    "a place in the store": (*PREDICTING, "--store", "s.zarr", "--output", "s.zarr/out.csv"),
    "a place in the store through a link": (*PREDICTING, "--store", "s.zarr", "--output", "linked.zarr/out.csv"),
    "failures over the corpus": (*PREDICTING, "--failures", "d.csv"),
    "failures over a linked corpus": (*PREDICTING, "--failures", "other/link.csv"),
    "failures over the RUN's config": (*PREDICTING, "--failures", "run/config.json"),
    "failures over the RUN's recycle.json": (*PREDICTING, "--failures", "run/recycle.json"),
    "failures over the predictions": (*PREDICTING, "--output", "out.csv", "--failures", "other/out.csv"),
    "failures over a thesis": (*PREDICTING, "--failures", "thesis.txt"),
    "failures over a thesis, skipping": (*PREDICTING, "--failures", "thesis.txt", "--on-error", "skip"),
    "failures over a folder": (*PREDICTING, "--failures", "run"),
    "precompute, failures over a thesis": ("precompute", "d.csv", "s.zarr", "--failures", "thesis.txt"),
    "precompute, failures over the corpus": ("precompute", "d.csv", "s.zarr", "--failures", "hard.csv"),
    "precompute, failures in the store": ("precompute", "d.csv", "s.zarr", "--failures", "s.zarr/zarr.json"),
    "a RUN over the store": ("finetune", "d.csv", "s.zarr", "--output", "s.zarr", "--overwrite"),
    "a RUN in the store": ("finetune", "d.csv", "s.zarr", "--output", "linked.zarr/run"),
    "a RUN over its model": ("finetune", "d.csv", "--model", "run", "--cut", 2, "--output", "run", "--overwrite"),
    "predictions over a folder": (*PREDICTING, "--output", "x.csv/../linked.zarr"),
}


@pytest.mark.parametrize("command", REFUSED.values(), ids=REFUSED)
def test_it_is_refused_and_all_is_as_it_was(recycle, place, command):
    before = content(place)
    done = recycle(*command, cwd=place)
    assert done.code == 2, done
    assert done.err.count("\n") == 1
    assert content(place) == before


def test_failures_of_none_leave_no_list_and_remove_only_one_of_ours(recycle, place, tmp_path):
    (tmp_path / "old.jsonl").write_text(json.dumps({"id": "1", "reason": "x"}) + "\n")
    for name in ("old.jsonl", "new.jsonl"):
        recycle.json(*PREDICTING, "--output", tmp_path / "out.csv", "--failures", tmp_path / name, cwd=place)
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


def test_a_command_that_fails_leaves_the_list_of_the_one_before(recycle, place, tmp_path):
    listed = json.dumps({"id": "1", "reason": "x"}) + "\n"
    (tmp_path / "list.jsonl").write_text(listed)
    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\n{"text": 5}\n')
    options = ("--output", tmp_path / "out.csv", "--failures", tmp_path / "list.jsonl")
    assert recycle("predict", tmp_path / "bad.jsonl", "run", *options, cwd=place).code == 3
    assert (tmp_path / "list.jsonl").read_text() == listed
    found = recycle.json("predict", tmp_path / "bad.jsonl", "run", *options, "--on-error", "skip", cwd=place)
    assert found["failed_samples"] == 1
    assert [json.loads(line)["id"] for line in (tmp_path / "list.jsonl").read_text().splitlines()] == ["1"]


def test_predictions_may_be_written_anew_and_into_the_run(recycle, place):
    for _ in range(2):
        recycle.json(*PREDICTING, cwd=place)
    assert (place / "run" / "predictions.csv").exists()


def test_a_training_that_fails_leaves_the_run_that_it_was_to_replace(recycle, place):
    before = content(place / "run")
    diverging = ("--learning-rate", 1e30, "--max-grad-norm", 1e30, "--epochs", 3)
    done = recycle("finetune", "d.csv", "s.zarr", "--output", "run", "--overwrite", *diverging, cwd=place)
    assert done.code == 3, done
    assert content(place / "run") == before


def test_data_and_a_store_in_the_run_train_the_one_that_replaces_it(recycle, place, tmp_path):
    shutil.copytree(place / "run", tmp_path / "run")
    shutil.copytree(place / "s.zarr", tmp_path / "run" / "s.zarr")
    shutil.copy(place / "d.csv", tmp_path / "run" / "d.csv")
    kept = content(tmp_path / "run" / "s.zarr")
    command = ("finetune", "run/d.csv", "run/s.zarr", "--output", "run", "--overwrite", "--seed", 5, *TRAINING)
    recycle.json(*command, cwd=tmp_path)
    assert json.loads((tmp_path / "run" / "recycle.json").read_text())["settings"]["seed"] == 5
    assert content(tmp_path / "run" / "s.zarr") == kept
    recycle.json("predict", "run/d.csv", "run", "--store", "run/s.zarr", cwd=tmp_path)
