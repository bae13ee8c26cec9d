"""Records of every kind of file become the same samples; what cannot be read ends in one line that says why."""

import bz2
import gzip
import json
import lzma
import subprocess
import sys
from pathlib import Path

import pytest

from recycle_cli.corpus import Columns, Corpus, Failure
from recycle_cli.errors import DataError, UsageError
from tests.corpora import open_corpus

ROWS = [("a", "The tea was cold,\nagain.", "bad"), ("b", 'Café, "très bon"', "good"), ("c", "007", "good")]
AS_CSV = 'id,text,label\na,"The tea was cold,\nagain.",bad\nb,"Café, ""très bon""",good\nc,007,good\n'
AS_JSON = "".join(json.dumps(dict(zip(("id", "text", "label"), row, strict=True))) + "\n" for row in ROWS)


def rows(corpus: Corpus) -> list[tuple[str, str | bytes, str | None]]:
    return [(example.id, example.sample.fields["text"], example.label) for example in corpus]


def texts(corpus: Corpus) -> list[str | bytes]:
    return [example.sample.fields["text"] for example in corpus]


def refusal(source, columns=None, **options) -> str:
    with pytest.raises(DataError) as caught:
        list(open_corpus(source, columns, **options))
    message = str(caught.value)
    assert "\n" not in message
    assert message.isprintable()
    return message


def table():
    import pyarrow

    columns = zip(*ROWS, strict=True)
    return pyarrow.table(dict(zip(("id", "text", "label"), map(list, columns), strict=True)))


def as_parquet(path: Path) -> None:
    from pyarrow.parquet import write_table

    write_table(table(), path, row_group_size=2)


def as_arrow(path: Path, stream: bool = False) -> None:
    import pyarrow

    with (pyarrow.ipc.new_stream if stream else pyarrow.ipc.new_file)(path, table().schema) as writer:
        writer.write_table(table())


def as_saved(path: Path) -> None:
    import datasets

    datasets.Dataset(table()).save_to_disk(path)


WRITERS = {
    "c.csv": lambda path: path.write_text(AS_CSV),
    "bom.csv": lambda path: path.write_text(AS_CSV, encoding="utf-8-sig"),
    "c.tsv": lambda path: path.write_text(
        AS_CSV.replace(",", "\t").replace("cold\t", "cold,").replace("Café\t", "Café,")
    ),
    "c.csv.gz": lambda path: path.write_bytes(gzip.compress(AS_CSV.encode())),
    "c.jsonl": lambda path: path.write_text(AS_JSON),
    "c.ndjson": lambda path: path.write_text(AS_JSON.replace("\n", "\r\n")),
    "c.json": lambda path: path.write_text(AS_JSON, encoding="utf-8-sig"),
    "C.JSONL.GZ": lambda path: path.write_bytes(gzip.compress(AS_JSON.encode())),
    "c.jsonl.bz2": lambda path: path.write_bytes(bz2.compress(AS_JSON.encode())),
    "c.jsonl.xz": lambda path: path.write_bytes(lzma.compress(AS_JSON.encode())),
    "c.parquet": as_parquet,
    "c [1]*.parquet": as_parquet,
    "c.arrow": as_arrow,
    "stream.arrow": lambda path: as_arrow(path, stream=True),
    "saved": as_saved,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file_gives_the_same_samples_again_and_again(tmp_path, name):
    WRITERS[name](tmp_path / name)
    corpus = open_corpus(str(tmp_path / name), labelled=True)
    assert corpus.columns == Columns(text="text", label="label", id="id")
    assert rows(corpus) == ROWS
    assert rows(corpus) == ROWS
    assert corpus.total in (None, len(ROWS))


def test_plain_lines(write):
    corpus = open_corpus(write("a.txt", "one, two\r\n\ufeffthree \u2028 four\nlast"))
    assert rows(corpus) == [("0", "one, two", None), ("1", "\ufeffthree \u2028 four", None), ("2", "last", None)]


def test_blank_lines_are_no_records_but_count_as_in_datasets(tmp_path, write):
    from datasets import load_dataset

    files = [write("a.txt", "\n one \n\n \t\ntwo\n"), write("b.txt", "\nthree")]
    corpus = open_corpus(files)
    assert rows(corpus) == [("1", " one ", None), ("4", "two", None), ("6", "three", None)]
    assert corpus.failed == 0
    theirs = load_dataset("text", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))["text"]
    assert [theirs[int(sample.id)] for sample in corpus] == [example.sample.fields["text"] for example in corpus]


@pytest.mark.parametrize("value", ["NA", "null", "nan", "None", "123", "007", "1e5", "True", " spaced ", "1,5", "\\N"])
def test_csv_cells_stay_the_text_they_are(write, value):
    corpus = open_corpus(write("a.csv", f'text,label\n"{value}","{value}"\n'), labelled=True)
    assert rows(corpus) == [("0", value, value)]


def test_line_ends_inside_quotes_stay_and_those_between_records_may_be_any(write):
    corpus = open_corpus(
        write("a.csv", 'text,label\r\n"one\r\ntwo\nthree",x\r\n\r\n"",\r\nfour,y\r\n'), on_error="skip"
    )
    assert rows(corpus) == [("0", "one\r\ntwo\nthree", "x"), ("2", "four", "y")]


def test_several_files_and_globs_come_in_order_and_ids_count_over_all(tmp_path, write):
    for name in ("b", "a", "c"):
        write(f"{name}.csv", f"text\n{name}1\n{name}2\n")
    assert texts(open_corpus(str(tmp_path / "*.csv"))) == ["a1", "a2", "b1", "b2", "c1", "c2"]
    corpus = open_corpus([str(tmp_path / "c.csv"), str(tmp_path / "a.csv")])
    assert [(example.id, example.sample.fields["text"]) for example in corpus] == [
        ("0", "c1"),
        ("1", "c2"),
        ("2", "a1"),
        ("3", "a2"),
    ]


def test_limit_and_total(tmp_path):
    as_parquet(tmp_path / "a.parquet")
    corpus = open_corpus(str(tmp_path / "a.parquet"), limit=2)
    assert (corpus.total, len(list(corpus)), len(list(corpus))) == (2, 2, 2)
    assert open_corpus(str(tmp_path / "a.parquet"), limit=99).total == 3
    (tmp_path / "a.csv").write_text("text\none\ntwo\n" + 200 * "x\n" + '"three\n')
    assert len(texts(open_corpus(str(tmp_path / "a.csv"), limit=202))) == 202
    with pytest.raises(UsageError, match="--limit 0"):
        open_corpus(str(tmp_path / "a.parquet"), limit=0)


# Which column is what


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("text", Columns("text")),
        ("utterance", Columns("utterance")),
        ("utterance,intent", Columns("utterance", label="intent")),
        ("id,sentence,labels", Columns("sentence", label="labels", id="id")),
        ("text,title,author", Columns("text")),
        ("sentence1,sentence2,label", Columns("sentence1", "sentence2", "label")),
        ("text,text_pair", Columns("text", "text_pair")),
        ("premise,hypothesis,idx", Columns("premise", "hypothesis")),
    ],
)
def test_obvious_columns_are_chosen(write, header, expected):
    cells = ",".join("x" for _ in header.split(","))
    assert open_corpus(write("a.csv", f"{header}\n{cells}\n")).columns == expected


@pytest.mark.parametrize(
    "header", ["title,abstract", "text,sentence", "text,premise,hypothesis", "question1,question2,premise,hypothesis"]
)
def test_what_is_not_obvious_lists_the_columns(write, header):
    cells = ",".join("x" for _ in header.split(","))
    message = refusal(write("a.csv", f"{header}\n{cells}\n"))
    assert "--text-column" in message
    assert header.replace(",", ", ") in message


def test_named_columns_win(write):
    path = write("a.jsonl", '{"text": "t", "body": "b", "title": "c", "label": 1, "stars": 5, "id": "i", "n": 7}\n')
    corpus = open_corpus(path, Columns("title", "body", "stars", "n"), labelled=True)
    (sample,) = corpus
    assert (sample.id, dict(sample.sample.fields), sample.label) == ("7", {"text": "c", "text_pair": "b"}, "5")
    assert open_corpus(path, Columns(text="body")).columns == Columns("body", None, "label", "id")
    assert open_corpus(path, Columns(text="text", text_pair="title")).columns.text_pair == "title"


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "arrow"])
@pytest.mark.parametrize("option", ["text", "text_pair", "label", "id"])
def test_a_named_column_that_is_not_there(tmp_path, kind, option):
    WRITERS[f"c.{kind}"](tmp_path / f"a.{kind}")
    message = refusal(str(tmp_path / f"a.{kind}"), Columns(**{option: "absent"}))
    assert "'absent'" in message
    assert f"--{option.replace('_', '-')}-column" in message
    assert "id, text, label" in message


def test_a_label_is_asked_for_only_where_it_is_needed(write):
    path = write("a.csv", "text,label,class\nx,1,2\n")
    assert rows(open_corpus(path)) == [("0", "x", None)]
    assert "--label-column" in refusal(path, labelled=True)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_later_file_without_the_column(tmp_path, kind):
    import pyarrow
    from pyarrow.parquet import write_table

    for name, column in (("a", "text"), ("b", "body")):
        if kind == "csv":
            (tmp_path / f"{name}.csv").write_text(f"{column}\nx\n")
        else:
            write_table(pyarrow.table({column: ["x"]}), tmp_path / f"{name}.parquet")
    message = refusal(str(tmp_path / f"*.{kind}"))
    assert f"b.{kind}" in message
    assert "'text'" in message
    assert "body" in message


# Labels


@pytest.mark.parametrize(
    ("value", "label"), [("pos", "pos"), (3, "3"), (3.0, "3"), (0.5, "0.5"), (True, "True"), (-1, "-1"), (" x", " x")]
)
def test_labels_become_text(write, value, label):
    path = write("a.jsonl", json.dumps({"text": "t", "label": value}) + "\n")
    assert [sample.label for sample in open_corpus(path, labelled=True)] == [label]


@pytest.mark.parametrize("value", [None, "", " \t", float("nan"), ["a", "b"], {"a": 1}])
def test_no_label_is_a_failure_where_labels_are_needed(write, value):
    path = write("a.jsonl", json.dumps({"text": "t", "label": value}) + "\n")
    assert [sample.label for sample in open_corpus(path)] == [None]
    assert "record 1" in refusal(path, labelled=True)


@pytest.mark.parametrize("kind", ["parquet", "arrow", "saved"])
def test_class_numbers_become_class_names(tmp_path, kind):
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    data = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, -1]}, features=features)
    path = tmp_path / f"a.{kind}"
    if kind == "parquet":
        data.to_parquet(path)
    elif kind == "saved":
        data.save_to_disk(path)
    else:
        with datasets.arrow_writer.ArrowWriter(path=str(path), features=features) as writer:
            writer.write_table(data.data.table)
            writer.finalize()
    assert rows(open_corpus(str(path))) == [("0", "a", "yes"), ("1", "b", "no"), ("2", "c", None)]
    assert "record 3" in refusal(str(path), labelled=True)


# Records that cannot be used

BAD_JSON = {
    '{"text": ""}': "empty",
    '{"text": " \\n\\t\\u3000"}': "empty",
    '{"text": null}': "no text",
    '{"other": "x"}': "no text",
    '{"text": 12}': "an integer",
    '{"text": {"a": 1}}': "an object",
    '{"text": ["x"]}': "a list",
    '{"text": "half \\ud83d of a pair"}': "not UTF-8 at character 6",
    '{"text": "caf\udce9"}': "not UTF-8 at character 4",
    '{"text": "x"': "not JSON",
    "[1, 2]": "not a JSON object",
    "[" * 100_000: "not JSON",
}


@pytest.mark.parametrize("line", BAD_JSON, ids=BAD_JSON.values())
def test_a_bad_record_is_named_or_passed_over(write, line):
    content = f'{{"text": "good", "n": 1}}\n{line}\n\n{{"text": "fine"}}\n'.encode(errors="surrogateescape")
    path = write("a.jsonl", content)
    message = refusal(path)
    assert f"{path}, record 2: " in message
    assert BAD_JSON[line] in message
    assert "--on-error skip" in message
    failures: list[Failure] = []
    corpus = open_corpus(path, on_error="skip", on_failure=failures.append)
    for passes in (1, 2):
        assert rows(corpus) == [("0", "good", None), ("2", "fine", None)]
        assert (corpus.failed, len(failures)) == (1, passes)
    assert failures[0].id == "1"
    assert failures[0].reason in message


def test_metadata_of_any_shape_is_no_business_of_ours(write):
    shapes = ["{}", '{"a": {}}', '{"a": 1}', '"x"', "null", "[{}, 1]", "1e400"]
    path = write("a.jsonl", "".join(f'{{"text": "t{i}", "metadata": {m}}}\n' for i, m in enumerate(shapes)))
    assert texts(open_corpus(path)) == [f"t{i}" for i in range(len(shapes))]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_rows_of_another_length_and_bytes_that_are_no_utf8(write, name):
    lines = [b"text,label,note", b"one,x,", b"two,x", b"three,x,y,z", b"caf\xe9,x,", b"five,x,caf\xe9", b"six,y,"]
    content = b"\n".join(lines).replace(b",", b"\t" if name == "a.tsv" else b",")
    path = write(name, content)
    failures: list[Failure] = []
    corpus = open_corpus(path, on_error="skip", on_failure=failures.append)
    assert texts(corpus) == ["one", "five", "six"]
    assert [failure.reason.rpartition(": ")[2] for failure in failures] == [
        "2 cells, expected 3 as in the first row",
        "4 cells, expected 3 as in the first row",
        "column 'text' is not UTF-8 at character 4",
    ]
    assert "record 2" in refusal(path)


def test_the_failure_carries_the_id_of_its_record(write):
    failures: list[Failure] = []
    path = write("a.csv", b"id,text\nx7,\n,\nb\xe9,\nok,fine\n")
    assert rows(open_corpus(path, on_error="skip", on_failure=failures.append)) == [("ok", "fine", None)]
    assert [failure.id for failure in failures] == ["x7", "1", "b\\udce9"]


def test_bad_records_of_a_table(tmp_path):
    import pyarrow
    from pyarrow.parquet import write_table

    write_table(pyarrow.table({"text": ["a", None, " ", "d"], "n": [1, 2, 3, 4]}), tmp_path / "a.parquet")
    corpus = open_corpus(str(tmp_path / "a.parquet"), on_error="skip")
    assert (texts(corpus), corpus.failed) == (["a", "d"], 2)
    assert "record 2: no text" in refusal(str(tmp_path / "a.parquet"))
    message = refusal(str(tmp_path / "a.parquet"), Columns(text="n"))
    assert "column 'n' holds an integer, expected a text" in message


def test_none_can_be_used(write):
    assert "none of 2 records" in refusal(write("a.jsonl", '{"text": ""}\n{"text": 1}\n'), on_error="skip")


# Files that cannot be used


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "", "is empty"),
        ("a.csv", "text,label\n", "holds the names of its columns alone, expected at least one record"),
        ("a.csv", "\n\n", "is empty"),
        ("a.jsonl", "", "is empty"),
        ("a.jsonl", "\n \n", "is empty"),
        ("a.txt", "", "is empty"),
        ("a.txt", "\n \n", "is empty"),
        ("a.parquet", "", "cannot be read"),
        ("a.parquet", "text\nx\n", "cannot be read"),
        ("a.arrow", "", "cannot be read"),
        ("a.arrow", "text\nx\n", "cannot be read"),
        ("a.csv.gz", "text\nx\n", "cannot be read"),
        ("a.csv", 'text,label\none,x\n"two,y\nthree,z\n', "line 4: unexpected end of data"),
        ("a.csv", 'text,label\n"one" more,x\n', "line 2"),
        ("a.csv", "text;label\none;x\n", "separated by ';'"),
        ("a.csv", "text,text\none,x\n", "more than one column 'text'"),
        ("a.csv", "text\none\n".encode("utf-16"), "not UTF-8"),
        ("a.jsonl", '[{"text": "one"}]', "JSON array"),
        ("a.jsonl", '{\n  "text": "one"\n}\n', "record 1: not JSON"),
        ("a.jsonl", '{"text": "one"}\n'.encode("utf-16"), "not UTF-8"),
        ("a.docx", "x", "unknown kind of file"),
        ("a.parquet.gz", "x", "unknown kind of file"),
        ("a", "x", "unknown kind of file"),
    ],
)
def test_a_file_that_cannot_be_read(write, name, content, said):
    path = write(name, content)
    message = refusal(path)
    assert path in message
    assert said in message


def test_an_endless_quotation_is_cut_off(write):
    path = write("a.csv", 'text\n"' + "x\n" * 9_000_000)
    assert "quotation marks" in refusal(path)


@pytest.mark.parametrize("name", ["c.csv.gz", "c.jsonl.bz2", "c.jsonl.xz", "c.parquet", "c.arrow"])
def test_a_file_cut_short(tmp_path, name):
    path = tmp_path / name
    WRITERS[name](path)
    path.write_bytes(path.read_bytes()[:-20])
    assert "cannot be read" in refusal(str(path))


@pytest.mark.parametrize("name", ["absent.csv", "absent/*.csv", "absent", "hub.csv*"])
def test_no_such_file(tmp_path, name):
    assert "no such file" in refusal(str(tmp_path / name))


def test_folders_and_mixtures(tmp_path, write):
    import datasets

    one, two = write("a.csv", "text\nx\n"), write("b.txt", "x\n")
    assert "is no saved dataset" in refusal(str(tmp_path))
    assert "is a folder" in refusal([one, str(tmp_path)])
    assert "several kinds (.csv, .txt)" in refusal([one, two])
    split = datasets.Dataset.from_dict({"text": ["x"]})
    datasets.DatasetDict({"train": split, "test": split}).save_to_disk(tmp_path / "dict")
    message = refusal(str(tmp_path / "dict"))
    assert "train, test" in message
    assert texts(open_corpus(str(tmp_path / "dict" / "test"))) == ["x"]
    assert "is empty" in refusal(empty_saved(tmp_path / "empty"))


def empty_saved(path: Path) -> str:
    import datasets

    datasets.Dataset.from_dict({"text": []}).save_to_disk(path)
    return str(path)


# The hub, played by a local folder


@pytest.fixture
def hub(tmp_path, monkeypatch):
    (tmp_path / "reviews").mkdir()
    for split in ("train", "test"):
        as_parquet(tmp_path / "reviews" / f"{split}.parquet")
    (tmp_path / "single").mkdir()
    as_parquet(tmp_path / "single" / "train.parquet")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "source", ["hub:reviews:test", "hub:reviews:default:test", "hub:reviews::train", "hub:single", "hub:single:default"]
)
def test_a_dataset_of_the_hub(hub, source):
    corpus = open_corpus(source, labelled=True)
    assert (rows(corpus), rows(corpus)) == (ROWS, ROWS)


@pytest.mark.parametrize("source", ["hub:reviews", "hub:reviews:dev", "hub:reviews:default:dev"])
def test_a_split_has_to_be_named(hub, source):
    message = refusal(source)
    assert "train" in message
    assert "test" in message


@pytest.mark.parametrize("source", ["hub:", "hub:a:b:c:d", "hub:reviews:other:test", "hub:./absent"])
def test_a_hub_name_that_leads_nowhere(hub, source):
    assert source in refusal(source)


# What a user never sees


def test_importing_stays_light_and_reading_leaves_no_trace(tmp_path):
    for name in ("c.csv", "c.jsonl.gz", "c.parquet"):
        WRITERS[name if name in WRITERS else "C.JSONL.GZ"](tmp_path / name)
    (tmp_path / "home").mkdir()
    code = (
        "import sys; from tests.corpora import open_corpus; "
        "assert not {'datasets', 'pandas', 'pyarrow', 'torch'} & set(sys.modules); "
        "[list(open_corpus(name)) for name in ('c.csv', 'c.jsonl.gz', 'c.parquet')]"
    )
    root = str(Path(__file__).parents[2])
    environment = {"HOME": str(tmp_path / "home"), "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [path for path in (tmp_path / "home").rglob("*") if path.is_file()] == []


def test_memory_does_not_grow_with_the_corpus(tmp_path):
    import tracemalloc

    line = json.dumps({"text": "x" * 200, "label": "y"}) + "\n"
    (tmp_path / "a.jsonl").write_text(line * 50_000)
    corpus = open_corpus(str(tmp_path / "a.jsonl"))
    tracemalloc.start()
    count = sum(1 for _ in corpus)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 50_000
    assert peak < 1_000_000
