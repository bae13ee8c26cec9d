"""A RUN knows the columns that it was trained on, and predicts from those."""

import csv
import json

import pytest

from tests.records import records, write_csv


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def place(recycle, tmp_path_factory, tiny_bert):
    """A RUN of single texts, in a column that nobody would guess, and one of pairs; both on the same records."""
    folder = tmp_path_factory.mktemp("place")
    found = records(24)
    table = [
        {"title": "red", "what": one["text"], "label": "no", "sense": one["label"], "number": f"n{place}"}
        for place, one in enumerate(found)
    ]
    write_csv(folder / "train.csv", table)
    write_csv(folder / "text.csv", [{"text": one["text"], "label": one["label"]} for one in found])
    write_csv(folder / "unlabelled.csv", [{"title": one["title"], "what": one["what"], "label": "no"} for one in table])
    write_csv(
        folder / "pairs.csv",
        [{"premise": one["text"], "hypothesis": "the cell", "label": one["label"]} for one in found],
    )
    options = ("--model", tiny_bert, "--cut", 2, "--max-length", 16, "--epochs", 1, "--no-tensorboard")
    named = ("--text-column", "what", "--label-column", "sense", "--id-column", "number")
    recycle.json("finetune", "train.csv", *named, "--output", "single", *options, cwd=folder)
    recycle.json("finetune", "pairs.csv", "--output", "pairs", *options, cwd=folder)
    return folder


def test_the_columns_are_kept_and_taken(recycle, place, tmp_path):
    about = json.loads((place / "single" / "recycle.json").read_text())
    assert about["columns"] == {"text": "what", "label": "sense", "id": "number"}
    done = recycle.json("predict", "train.csv", "single", "--output", tmp_path / "own.csv", cwd=place)
    assert done["labelled_samples"] == 24
    assert [one["id"] for one in rows(tmp_path / "own.csv")] == [f"n{place}" for place in range(24)]
    other = ("--text-column", "title", "--output", tmp_path / "title.csv")
    recycle.json("predict", "train.csv", "single", *other, cwd=place)
    assert len({one["score"] for one in rows(tmp_path / "title.csv")}) == 1


def test_a_label_that_is_missing_is_not_another_column(recycle, place, tmp_path):
    done = recycle.json("predict", "unlabelled.csv", "single", "--output", tmp_path / "out.csv", cwd=place)
    assert done["metrics"] is None
    named = ("--label-column", "label")
    done = recycle.json("predict", "unlabelled.csv", "single", *named, "--output", tmp_path / "out.csv", cwd=place)
    assert "the label 'no' is not one of the run's classes" in done["no_metrics"]


def test_an_input_that_is_missing_is_one_line(recycle, place, tmp_path):
    for data, run, said in (
        ("text.csv", "single", "no column 'what', the text that the run was trained on; name it with --text-column"),
        ("text.csv", "pairs", "no column 'premise', the text that the run was trained on"),
    ):
        done = recycle("predict", data, run, "--output", tmp_path / "out.csv", cwd=place)
        assert (done.code, done.err.count("\n")) == (3, 1)
        assert said in done.err
    recycle.json("predict", "text.csv", "single", "--text-column", "text", "--output", tmp_path / "out.csv", cwd=place)


def test_pairs_and_single_texts_are_not_taken_for_one_another(recycle, place, tmp_path):
    output = ("--output", tmp_path / "out.csv")
    done = recycle("predict", "text.csv", "pairs", "--text-column", "text", *output, cwd=place)
    assert (done.code, done.err.count("\n")) == (3, 1)
    assert "no column 'hypothesis', the text pair that the run was trained on" in done.err
    named = ("--text-column", "premise", "--text-pair-column", "hypothesis")
    done = recycle("predict", "pairs.csv", "single", *named, *output, cwd=place)
    assert (done.code, done.err.count("\n")) == (3, 1)
    assert "--text-pair-column hypothesis: the run was trained without it, on text alone; leave it out" in done.err
    done = recycle.json("predict", "pairs.csv", "pairs", *output, cwd=place)
    assert done["labelled_samples"] == 24


def test_a_run_of_before_finds_its_columns_as_before(recycle, place, tmp_path):
    (tmp_path / "old").mkdir()
    for file in (place / "single").iterdir():
        if file.is_file():
            (tmp_path / "old" / file.name).write_bytes(file.read_bytes())
    about = json.loads((tmp_path / "old" / "recycle.json").read_text())
    about = {name: value for name, value in about.items() if name not in ("columns", "files")} | {"version": 1}
    (tmp_path / "old" / "recycle.json").write_text(json.dumps(about))
    done = recycle.json("predict", place / "text.csv", tmp_path / "old")
    assert done["labelled_samples"] == 24
