"""Prediction files: the three kinds hold the same records, and a failed run leaves none."""

import csv
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from recycle_cli.errors import StorageError, UsageError
from recycle_cli.keys import Sample
from recycle_cli.runs import open_output

SAMPLES = [Sample("a", {"text": "x"}), Sample('b,\n"', {"text": "y"})]
FOUND = [
    {"label": "no", "score": 0.75, "score_no": 0.75, "score_yes": 0.25},
    {"label": "yes", "score": 0.5, "score_no": 0.5, "score_yes": 0.5},
]
COLUMNS = {"label": "text", "score": "number", "score_no": "number", "score_yes": "number"}


def written(path):
    with open_output(str(path), COLUMNS) as write:
        write(SAMPLES[:1], FOUND[:1])
        write(SAMPLES[1:], FOUND[1:])
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in text.splitlines()]
    rows = list(csv.DictReader(text.splitlines(keepends=True)))
    return [{name: float(value) if "score" in name else value for name, value in row.items()} for row in rows]


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_every_kind_holds_the_same_records(tmp_path, ending):
    records = written(tmp_path / f"out{ending}")
    assert records == [
        {"id": "a", "label": "no", "score": 0.75, "score_no": 0.75, "score_yes": 0.25},
        {"id": 'b,\n"', "label": "yes", "score": 0.5, "score_no": 0.5, "score_yes": 0.5},
    ]
    assert [path.name for path in tmp_path.iterdir()] == [f"out{ending}"]


def test_a_failed_run_leaves_no_file_and_keeps_the_old_one(tmp_path):
    target = tmp_path / "out.csv"
    target.write_text("old")

    def fail(error):
        with open_output(str(target), COLUMNS):
            raise error

    for error in (ValueError("broken"), OSError("the caller's own")):
        with pytest.raises(type(error), match=str(error)):
            fail(error)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("out.csv", "old")]


def test_an_unknown_ending_is_a_usage_error_that_lists_the_known(tmp_path):
    with (
        pytest.raises(UsageError, match=r"out\.xlsx.*\.csv, \.jsonl, \.parquet"),
        open_output(str(tmp_path / "out.xlsx"), COLUMNS),
    ):
        pass


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"file/out\.csv"), open_output(str(tmp_path / "file" / "out.csv"), COLUMNS):
        pass


SEVERAL = {"labels": "texts", "score_a": "number"}
VECTOR = {"embedding": "numbers"}


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_several_labels_are_a_list_or_one_text(tmp_path, ending):
    path = tmp_path / f"out{ending}"
    with open_output(str(path), SEVERAL) as write:
        write(SAMPLES, [{"labels": ["a", "b"], "score_a": 0.75}, {"labels": [], "score_a": 0.25}])
    if ending == ".csv":
        assert [row["labels"] for row in csv.DictReader(path.read_text().splitlines(keepends=True))] == ["a|b", "|"]
        return
    table = pq.read_table(path).to_pylist() if ending == ".parquet" else map(json.loads, path.read_text().splitlines())
    assert [row["labels"] for row in table] == [["a", "b"], []]


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_vectors_are_lists_of_numbers(tmp_path, ending):
    path = tmp_path / f"out{ending}"
    with open_output(str(path), VECTOR) as write:
        write(SAMPLES, [{"embedding": [0.5, 0.25]}, {"embedding": [1.0, 0.0]}])
    table = pq.read_table(path).to_pylist() if ending == ".parquet" else map(json.loads, path.read_text().splitlines())
    assert [row["embedding"] for row in table] == [[0.5, 0.25], [1.0, 0.0]]


def test_vectors_are_refused_in_csv(tmp_path):
    with (
        pytest.raises(UsageError, match=r"out\.csv.*one of \.jsonl, \.parquet"),
        open_output(str(tmp_path / "out.csv"), VECTOR),
    ):
        pass


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_a_full_disk_is_a_storage_error(tmp_path, monkeypatch, ending):
    target = tmp_path / f"out{ending}"
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
    (tmp_path / f"out{ending}.partial").symlink_to("/dev/full")
    for times in (1, 10_000):  # at closing, and in the midst of writing
        full = pytest.raises(StorageError, match=r"cannot be written \(No space left")
        with full, open_output(str(target), COLUMNS) as write:
            write(SAMPLES * times, FOUND * times)
    assert not target.exists()
