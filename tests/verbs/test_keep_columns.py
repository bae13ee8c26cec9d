"""Predictions with the columns of their records beside them, and predictions on stdout."""

import csv
import json
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recycle_cli.errors import PipeClosed
from recycle_cli.runs import open_output
from tests.records import records, write_csv

NOTE = 'x,"y"\nz'


@pytest.fixture(scope="module")
def place(recycle, tmp_path_factory, tiny_bert):
    """A RUN, and records with further columns in three kinds of files."""
    folder = tmp_path_factory.mktemp("place")
    table = [
        {
            **one,
            "price, old": place / 4,
            "count": place,
            "tags": ["a", str(place)],
            "note": 'x,"y"\nz' if place % 2 else None,
        }
        for place, one in enumerate(records(30))
    ]
    write_csv(folder / "data.csv", [{**one, "tags": "a", "note": one["note"] or ""} for one in table])
    (folder / "data.jsonl").write_text("".join(json.dumps(one) + "\n" for one in table))
    pq.write_table(pa.Table.from_pylist(table), folder / "data.parquet")
    options = ("--model", tiny_bert, "--cut", 2, "--max-length", 16, "--epochs", 1, "--no-tensorboard")
    recycle.json("finetune", "data.csv", "--output", "run", *options, cwd=folder)
    recycle.json("precompute", "data.csv", "acts", "--model", tiny_bert, "--cut", 2, "--max-length", 16, cwd=folder)
    return folder


def read(path):
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


OFTEN = {("data.csv", "jsonl"), ("data.jsonl", "parquet"), ("data.parquet", "csv"), ("data.parquet", "parquet")}
"""Every kind of file read and written, and values with their types kept and lost."""


@pytest.mark.parametrize(
    ("source", "ending"),
    [
        pytest.param(source, ending, marks=() if (source, ending) in OFTEN else pytest.mark.long)
        for source in ("data.csv", "data.jsonl", "data.parquet")
        for ending in ("csv", "jsonl", "parquet")
    ],
)
def test_every_column_of_every_kind_stands_beside_its_prediction(recycle, place, tmp_path, source, ending):
    out = tmp_path / f"out.{ending}"
    options = ("--keep-columns", "all", "--store", "acts", "--output", out)
    done = recycle("predict", source, "run", *options, "--json", cwd=place)
    assert done.code == 0, done.err
    assert "writing 'label' as 'given_label', beside those of the predictions" in done.err
    found, given = read(out), read(place / source)
    assert list(found[0])[:7] == ["id", "text", "given_label", "price, old", "count", "tags", "note"]
    assert list(found[0])[7:9] == ["label", "score"]
    for mine, theirs in zip(found, given, strict=True):
        assert (mine["text"], mine["given_label"]) == (theirs["text"], theirs["label"])
        for name in ("price, old", "count", "note"):
            typed = not source.endswith(".csv") and ending != "csv"
            expected = theirs[name] if typed else ("" if theirs[name] is None else str(theirs[name]))
            assert mine[name] == (expected if typed or ending == "csv" else theirs[name])
        tags = theirs["tags"] if isinstance(theirs["tags"], str) or ending == "jsonl" else json.dumps(theirs["tags"])
        assert mine["tags"] == tags
    plain = tmp_path / f"plain.{ending}"
    recycle.json("predict", source, "run", "--store", "acts", "--output", plain, cwd=place)
    kept = {"text", "given_label", "price, old", "count", "tags", "note"}
    assert [{name: value for name, value in one.items() if name not in kept} for one in found] == read(plain)


def test_named_columns_alone(recycle, place, tmp_path):
    options = ("--keep-columns", "count, note", "--keep-columns", "price, old", "--output", tmp_path / "out.jsonl")
    recycle.json("predict", "data.jsonl", "run", *options, cwd=place)
    assert list(read(tmp_path / "out.jsonl")[0])[:4] == ["id", "count", "note", "price, old"]


@pytest.mark.parametrize(
    ("names", "said", "code"),
    [
        ("nope", "no column 'nope' (--keep-columns); the columns are: text, label", 3),
        ("count,nope", "no column 'nope' (--keep-columns)", 3),
    ],
)
def test_a_column_that_is_not_there(recycle, place, tmp_path, names, said, code):
    done = recycle("predict", "data.csv", "run", "--keep-columns", names, "--output", tmp_path / "out.csv", cwd=place)
    assert (done.code, done.err.count("\n")) == (code, 1)
    assert said in done.err


def test_names_that_clash_twice_are_refused(recycle, place, tmp_path):
    rows = [{"text": "red", "label": "a", "given_label": "b"}]
    write_csv(tmp_path / "in.csv", rows)
    done = recycle(
        "predict", tmp_path / "in.csv", "run", "--keep-columns", "all", "--output", tmp_path / "o.csv", cwd=place
    )
    assert (done.code, "which is taken; rename it" in done.err) == (2, True)


def test_values_of_several_kinds_are_text_in_parquet_whatever_comes_first(recycle, place, tmp_path):
    rows = [{"text": f"red {place}", "x": place if place < 9000 else "many"} for place in range(9001)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    options = ("--keep-columns", "x", "--output")
    for ending in ("parquet", "jsonl"):
        recycle.json("predict", tmp_path / "in.jsonl", "run", *options, tmp_path / f"o.{ending}", cwd=place)
    assert [one["x"] for one in read(tmp_path / "o.jsonl")] == [one["x"] for one in rows]
    assert [one["x"] for one in read(tmp_path / "o.parquet")] == [str(one["x"]) for one in rows]


def write_parts(path, parts):
    with open_output(str(path), {"label": "text"}, kept={"x": "x"}) as write:
        for values in parts:
            write([SimpleNamespace(id="0", kept={"x": value}) for value in values], [{"label": "a"}] * len(values))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, -(2**63)], [1, -(2**63)]),
        ([1, 2**63], ["1", str(2**63)]),
        ([1, 1.5, None], [1.0, 1.5, None]),
        ([2**53, 1.5], [2.0**53, 1.5]),
        ([1.5, 2**53 + 1], ["1.5", str(2**53 + 1)]),
        ([1, True], ["1", "true"]),
        ([True, None, False], [True, None, False]),
        ([True, 1.0], ["true", "1.0"]),
        (["1", 1, None, "null"], ["1", "1", None, "null"]),
        ([{"a": [1]}, "é\n"], ['{"a": [1]}', "é\n"]),
        ([None, None], [None, None]),
    ],
)
def test_parquet_changes_no_value_whatever_part_it_comes_in(tmp_path, values, expected):
    every = (values, expected), (values[::-1], expected[::-1])
    for number, (given, wanted) in enumerate(every):
        for name, parts in {"one": [given], "each": [[value] for value in given]}.items():
            path = tmp_path / f"{name}{number}.parquet"
            write_parts(path, parts)
            found = [one["x"] for one in read(path)]
            assert (found, list(map(type, found))) == (wanted, list(map(type, wanted)))
    assert len(list(tmp_path.iterdir())) == 4


def test_parquet_of_no_records(tmp_path):
    write_parts(tmp_path / "o.parquet", [])
    assert pq.read_table(tmp_path / "o.parquet").schema.names == ["id", "x", "label"]


def test_odd_values_are_written_or_refused(recycle, place, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"text": "red", "x": NaN, "y": {"a": [1, true]}}\n{"text": "cell"}\n')
    options = ("--keep-columns", "all", "--output", tmp_path / "o.jsonl")
    recycle.json("predict", tmp_path / "in.jsonl", "run", *options, cwd=place)
    assert [(one["x"], one["y"]) for one in read(tmp_path / "o.jsonl")] == [(None, {"a": [1, True]}), (None, None)]
    pq.write_table(pa.table({"text": ["red"], "raw": [b"\\x00"]}), tmp_path / "in.parquet")
    done = recycle("predict", tmp_path / "in.parquet", "run", *options, cwd=place)
    assert (done.code, "the column 'raw' holds a bytes, which cannot be kept" in done.err) == (3, True)


@pytest.mark.parametrize("format", [None, "csv"])
def test_predictions_on_stdout_are_those_of_a_file(recycle, place, tmp_path, format):
    options = () if format is None else ("--output-format", format)
    ending = format or "jsonl"
    done = recycle("predict", "data.csv", "run", "--store", "acts", "--output", "-", *options, cwd=place)
    recycle.json("predict", "data.csv", "run", "--store", "acts", "--output", tmp_path / f"o.{ending}", cwd=place)
    assert done.code == 0
    assert done.out == (tmp_path / f"o.{ending}").read_text()


def test_the_format_may_be_said_apart_from_the_name(recycle, place, tmp_path):
    options = ("--store", "acts", "--output", tmp_path / "o.out", "--output-format", "parquet")
    recycle.json("predict", "data.csv", "run", *options, cwd=place)
    assert len(pq.read_table(tmp_path / "o.out")) == 30
    done = recycle.json("predict", "data.csv", "run", "--store", "acts", "--output-format", "jsonl", cwd=place)
    assert done["output"] == "run/predictions.jsonl"


def test_two_things_on_stdout_are_refused(recycle, place):
    done = recycle("predict", "data.csv", "run", "--output", "-", "--json", cwd=place)
    assert done.code == 2
    assert "--output - writes the predictions; leave out one" in done.err


def test_a_reader_that_ends_early_ends_the_command_quietly(recycle, place):
    done = recycle("predict", "data.csv", "run", "--store", "acts", "--output", "-", cwd=place, unread=True)
    assert done.code == 141
    assert "Error" not in done.err
    assert "Exception" not in done.err


def test_json_for_a_reader_that_has_ended():
    """What a command prints last is told in the same way as what it writes on the way."""
    from recycle_cli.cli.options import with_options

    @with_options()
    def command(asked):
        raise BrokenPipeError

    with pytest.raises(PipeClosed) as stop:
        command(as_json=True, quiet=True, config=None)
    assert stop.value.exit_code == 141
