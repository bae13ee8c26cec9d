"""Prediction files: the three kinds hold the same records, and a failed run leaves none."""

import csv
import json

import pyarrow.parquet as pq
import pytest

from recycle_cli.errors import StorageError, UsageError
from recycle_cli.keys import Sample
from recycle_cli.outputs import open_output

SAMPLES = [Sample("a", {"text": "x"}), Sample('b,\n"', {"text": "y"})]
FOUND = [
    {"label": "no", "score": 0.75, "scores": {"no": 0.75, "yes": 0.25}},
    {"label": "yes", "score": 0.5, "scores": {"no": 0.5, "yes": 0.5}},
]


def written(path):
    with open_output(str(path), ["no", "yes"]) as write:
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

    def fail():
        with open_output(str(target), ["no"]):
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("out.csv", "old")]


def test_an_unknown_ending_is_a_usage_error_that_lists_the_known(tmp_path):
    with (
        pytest.raises(UsageError, match=r"out\.xlsx.*\.csv, \.jsonl, \.parquet"),
        open_output(str(tmp_path / "out.xlsx"), []),
    ):
        pass


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"file/out\.csv"), open_output(str(tmp_path / "file" / "out.csv"), []):
        pass
