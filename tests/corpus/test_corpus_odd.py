"""Whatever a reader raises ends in one line, and what a corpus holds beside the columns in use is no concern."""

import gzip
import json
import lzma
import sys

import pyarrow
import pytest
from pyarrow.parquet import write_table

from recycle_cli.corpus import IMAGE, TEXT, Columns
from recycle_cli.corpus.boundary import reading
from recycle_cli.errors import DataError, Interrupted
from tests.corpora import open_corpus
from tests.corpus.test_corpus import refusal, rows, texts

TEXTS = ["one", "two"]


# The boundary


class OddError(Exception):
    """What nobody lists."""


@pytest.mark.parametrize(
    "error", [OddError("it broke\nhere"), RuntimeError(), AttributeError("x"), OSError(5, "I/O", "f")]
)
def test_whatever_a_library_raises_becomes_a_chained_line(error):
    with pytest.raises(DataError) as caught, reading("a.csv"):
        raise error
    assert str(caught.value).startswith("a.csv: cannot be read (")
    assert str(caught.value).isprintable()
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), Interrupted(), MemoryError(), DataError("mine")])
def test_what_is_no_fault_of_the_file_passes(error):
    with pytest.raises(type(error)) as caught, reading("a.csv"):
        raise error
    assert caught.value is error


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl", "a.txt.gz"])
def test_a_fault_of_ours_is_not_taken_for_one_of_the_file(tmp_path, monkeypatch, name):
    content = b'{"text": "one"}\n' if name.endswith("jsonl") else b"text\none\n"
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    corpus = open_corpus(str(tmp_path / name))
    monkeypatch.setattr("recycle_cli.corpus.texts.text_of", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(corpus)


@pytest.mark.parametrize("name", ["a.txt", "a.csv.xz", "a.parquet", "a.arrow"])
def test_a_reader_that_raises_anything_ends_in_a_line(tmp_path, monkeypatch, name):
    (tmp_path / name).write_bytes(b"x")

    def broken(*arguments, **options):
        raise OddError("no luck")

    for place in ("recycle_cli.corpus.lines.open_text", "pyarrow.memory_map", "pyarrow.parquet.read_metadata"):
        monkeypatch.setattr(place, broken)
    assert "cannot be read (no luck)" in refusal(str(tmp_path / name))


def test_an_image_path_of_a_home_that_is_not_there_is_a_record_that_says_so(tmp_path):
    (tmp_path / "a.csv").write_text("image,label\n~nobody-of-that-name/x.png,a\n")
    assert "record 1: the image ~nobody-of-that-name/x.png cannot be read" in refusal(
        str(tmp_path / "a.csv"), form=IMAGE
    )


@pytest.mark.parametrize("head", ["", "data:image/png;base64,"])
def test_an_image_written_as_text_is_not_quoted_whole(tmp_path, head):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"image": head + 40_000 * "iVBO", "label": "a"}) + "\n")
    reason = refusal(str(path), form=IMAGE)
    assert "if it is the image itself as base64, decode it into bytes" in reason
    assert len(reason) < 500


@pytest.mark.parametrize("name", ["~nobody-of-that-name/a.csv", 5000 * "a" + ".csv", "a\0b.csv", "loop/a.csv"])
@pytest.mark.parametrize("form", [TEXT, IMAGE])
def test_a_name_that_no_file_can_have_is_one_line(tmp_path, monkeypatch, name, form):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(DataError, match=r"cannot be read|no such file"):
        open_corpus(name, form=form)


# Names with the marks of patterns


@pytest.mark.parametrize(
    "name", ["data[1].jsonl.gz", "x[.csv", "a*b?.txt", "a::b.jsonl.xz", "[!a].parquet", "{a}[b].arrow"]
)
def test_a_name_with_marks_of_a_pattern_is_a_name(tmp_path, name):
    path = str(tmp_path / name)
    pack = {"gz": gzip.compress, "xz": lzma.compress}.get(name.rpartition(".")[2], bytes)
    table = pyarrow.table({"text": TEXTS})
    if name.endswith("parquet"):
        write_table(table, path)
    elif name.endswith("arrow"):
        with pyarrow.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)
    else:
        lines = [json.dumps({"text": one}) for one in TEXTS] if "jsonl" in name else TEXTS
        head = ["text"] if "csv" in name else []
        (tmp_path / name).write_bytes(pack(("\n".join([*head, *lines]) + "\n").encode()))
    assert texts(open_corpus(path)) == TEXTS


@pytest.mark.parametrize("folder", ["data [v1]", "[a-c]", "x*", "a?b/[1]"])
def test_a_folder_that_is_there_by_name_is_no_pattern(tmp_path, folder):
    (tmp_path / folder).mkdir(parents=True)
    for name in TEXTS:
        (tmp_path / folder / f"{name}.csv").write_text(f"text\n{name}\n")
    assert texts(open_corpus(str(tmp_path / folder / "*.csv"))) == TEXTS
    assert texts(open_corpus(str(tmp_path / folder / "[ot]*.csv"))) == TEXTS


def test_a_pattern_that_finds_nothing_says_that_it_is_one(tmp_path):
    assert "no such file; *, ?, [ and ] are a pattern in it" in refusal(str(tmp_path / "data[1].csv"))


def test_zstandard_needs_no_package_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zstandard", None)
    (tmp_path / "a.txt.zst").write_bytes(pyarrow.compress(b"one\ntwo\n", codec="zstd", asbytes=True))
    assert texts(open_corpus(str(tmp_path / "a.txt.zst"))) == TEXTS


# Columns nobody asked for


def ree():
    return pyarrow.RunEndEncodedArray.from_arrays(pyarrow.array([2], pyarrow.int32()), pyarrow.array(["x"]))


ODD = {
    "map": lambda: pyarrow.array([[("a", 1)], []], pyarrow.map_(pyarrow.string(), pyarrow.int32())),
    "uuid": lambda: pyarrow.array([b"0" * 16, b"1" * 16], pyarrow.uuid()),
    "interval": lambda: pyarrow.array([(1, 2, 3), None], pyarrow.month_day_nano_interval()),
    "run-end": ree,
    "category": lambda: pyarrow.array(["x", "y"]).dictionary_encode(),
    "null": lambda: pyarrow.nulls(2),
    "decimal": lambda: pyarrow.array([1, 2], pyarrow.decimal128(5, 1)),
    "view": lambda: pyarrow.array(["x", "y"], pyarrow.string_view()),
}


def write_arrow(table, path, *, stream=False):
    with (pyarrow.ipc.new_stream if stream else pyarrow.ipc.new_file)(path, table.schema) as writer:
        writer.write_table(table)


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("ending", ["parquet", "arrow", "stream"])
def test_an_odd_column_that_is_not_in_use_is_no_concern(tmp_path, kind, ending):
    path = str(tmp_path / ("a.parquet" if ending == "parquet" else "a.arrow"))
    table = pyarrow.table({"odd": ODD[kind](), "text": TEXTS, "label": [1, 2]})
    try:
        write_table(table, path) if ending == "parquet" else write_arrow(table, path, stream=ending == "stream")
    except pyarrow.ArrowNotImplementedError:
        pytest.skip(f"{ending} holds no {kind}")
    corpus = open_corpus(path, labelled=True)
    assert rows(corpus) == [("0", "one", "1"), ("1", "two", "2")]


@pytest.mark.parametrize("kind", ["category", "view"])
def test_an_odd_column_of_texts_can_be_in_use(tmp_path, kind):
    write_arrow(pyarrow.table({"text": ODD[kind](), "label": ODD[kind]()}), tmp_path / "a.arrow")
    assert rows(open_corpus(str(tmp_path / "a.arrow"), labelled=True)) == [("0", "x", "x"), ("1", "y", "y")]


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
@pytest.mark.parametrize("twice", ["text", "label", "other"])
def test_a_name_that_is_there_twice_matters_where_it_is_in_use(tmp_path, ending, twice):
    names = ["text", "label", "other", twice]
    table = pyarrow.table([pyarrow.array(TEXTS)] * 4, names=names)
    path = str(tmp_path / f"a.{ending}")
    write_table(table, path) if ending == "parquet" else write_arrow(table, path)
    if twice == "other":
        assert rows(open_corpus(path, labelled=True)) == [("0", "one", "one"), ("1", "two", "two")]
    else:
        assert f"more than one column {twice!r}" in refusal(path, labelled=True)


def test_names_of_classes_are_read_beside_a_feature_of_tomorrow(tmp_path):
    features = {
        "label": {"names": ["bad", "good"], "_type": "ClassLabel"},
        "odd": {"_type": "HologramOfTomorrow"},
        "text": {"dtype": "string", "_type": "Value"},
    }
    table = pyarrow.table({"text": TEXTS, "label": [1, 0], "odd": [1, 2]}).replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})}
    )
    write_table(table, tmp_path / "a.parquet")
    write_arrow(table, tmp_path / "a.arrow")
    for ending in ("parquet", "arrow"):
        path = str(tmp_path / f"a.{ending}")
        assert rows(open_corpus(path, labelled=True)) == [("0", "one", "good"), ("1", "two", "bad")]
        assert "cannot be read" in refusal(path, Columns(label="odd"), labelled=True)


def test_a_cell_that_cannot_be_read_loses_its_record_alone(tmp_path):
    broken = pyarrow.array([b"one", b"\xff\xfe", b"two"]).view(pyarrow.string())
    write_arrow(pyarrow.table({"text": broken, "label": ["x", "y", "z"]}), tmp_path / "a.arrow")
    assert "a.arrow, record 2: column 'text': cannot be read (" in refusal(str(tmp_path / "a.arrow"))
    corpus = open_corpus(str(tmp_path / "a.arrow"), on_error="skip")
    assert rows(corpus) == [("0", "one", "x"), ("2", "two", "z")]
    assert corpus.failed == 1
