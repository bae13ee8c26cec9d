"""Prediction files: the three kinds hold the same records, and a failed run leaves none."""

import csv
import json
import resource

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
        pytest.raises(UsageError, match=r"out\.csv.*an ending of \.jsonl, \.parquet"),
        open_output(str(tmp_path / "out.csv"), VECTOR),
    ):
        pass


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_a_full_disk_is_a_storage_error(tmp_path, ending):
    target = tmp_path / f"out{ending}"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for times in (1, 10_000):  # at closing, and in the midst of writing
        resource.setrlimit(resource.RLIMIT_FSIZE, (20, before[1]))
        try:
            full = pytest.raises(StorageError, match=r"cannot be written \(File too large")
            with full, open_output(str(target), COLUMNS) as write:
                write(SAMPLES * times, FOUND * times)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


def test_two_at_once_have_two_files_of_their_own(tmp_path):
    target = tmp_path / "out.jsonl"
    with open_output(str(target), COLUMNS) as write:
        write(SAMPLES[:1], FOUND[:1])
        with open_output(str(target), COLUMNS) as other:
            other(SAMPLES[1:], FOUND[1:])
        assert [json.loads(line)["id"] for line in target.read_text().splitlines()] == [SAMPLES[1].id]
    assert [json.loads(line)["id"] for line in target.read_text().splitlines()] == [SAMPLES[0].id]
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


def test_a_link_at_the_name_is_replaced_and_not_written_through(tmp_path):
    (tmp_path / "precious.csv").write_text("mine")
    (tmp_path / "out.csv").symlink_to("precious.csv")
    written(tmp_path / "out.csv")
    assert (tmp_path / "precious.csv").read_text() == "mine"


@pytest.mark.parametrize("cell", ["=cmd|'/c calc'!A1", "+1+1", "-2", "@SUM(A1)", "\uff1dx", " =x", "\t=x"])
def test_csv_safe_leaves_a_spreadsheet_no_formula_and_a_terminal_no_escape(tmp_path, cell):
    path = tmp_path / "out.csv"
    samples = [Sample(cell, {"text": "x"}), Sample("\x1b[31mred", {"text": "y"})]
    with open_output(str(path), {"labels": "texts", f"score_{cell}": "number"}, csv_safe=True) as write:
        write(samples, [{"labels": [cell], f"score_{cell}": -0.5}, {"labels": ["a"], f"score_{cell}": 0.5}])
    with path.open(newline="", encoding="utf-8") as file:
        _, first, second = csv.reader(file)
    assert not [one for one in first[:2] if one.lstrip()[0] in "=+-@\uff1d"]
    assert first[2] == "-0.5"
    assert second[0] == "\N{REPLACEMENT CHARACTER}[31mred"
    with (
        pytest.raises(UsageError, match=r"--csv-safe: .*no \.csv"),
        open_output(str(tmp_path / "out.jsonl"), COLUMNS, csv_safe=True),
    ):
        pass
