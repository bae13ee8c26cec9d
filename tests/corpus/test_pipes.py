"""Records from stdin and from named pipes, kinds of files that their names do not tell, and unquoted tables."""

import errno
import io
import os
import sys
import threading

import pytest

from recycle_cli.corpus import Corpus, pipes
from recycle_cli.errors import DataError, UsageError
from recycle_cli.settings import CorpusSettings, FileSettings
from tests.records import records, write_csv


def open_as(source, format=None, quoting="standard", **options):
    sources = (source,) if isinstance(source, str) else tuple(source)
    return Corpus(CorpusSettings(sources, files=FileSettings(format, quoting), **options))


def texts(corpus):
    return [one.sample.fields["text"] for one in corpus]


@pytest.fixture
def stdin(monkeypatch):
    """Bytes that wait in stdin, which is a pipe."""

    given = []

    def give(content):
        pipes._copied.cache_clear()
        read, write = os.pipe()
        os.write(write, content)  # less than a pipe holds
        os.close(write)
        given.append(io.TextIOWrapper(os.fdopen(read, "rb")))
        monkeypatch.setattr(sys, "stdin", given[-1])

    yield give
    pipes._copied.cache_clear()
    for one in given:
        one.close()


@pytest.mark.parametrize(
    ("format", "content"),
    [
        (None, b'{"text": "a b"}\n{"text": "c"}\n'),
        ("jsonl", b'{"text": "a b"}\n{"text": "c"}\n'),
        ("csv", b'text,n\n"a b",1\nc,2\n'),
        ("tsv", b"text\tn\na b\t1\nc\t2\n"),
        ("txt", b"a b\n\nc\n"),
    ],
)
def test_stdin_is_read_as_often_as_needed(stdin, format, content):
    stdin(content)
    corpus = open_as("-", format)
    assert corpus.name == "stdin"
    assert texts(corpus) == texts(corpus) == ["a b", "c"]
    assert not list(open_as("-", format, limit=1))[1:]


def test_tables_come_through_a_pipe_as_well(stdin, tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table({"text": ["a", "b"]}), tmp_path / "a.parquet")
    stdin((tmp_path / "a.parquet").read_bytes())
    assert texts(open_as("-", "parquet")) == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "stdin: is empty"),
        (b"text\na\n", "stdin, record 1: not JSON"),
        (b'[{"text": "a"}]', "stdin: is a JSON array"),
        (b'{"x": 1}\n', "stdin: which column is the text"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 1\n", "stdin: is a Git LFS pointer"),
    ],
)
def test_messages_name_stdin_and_no_temporary_file(stdin, content, said):
    stdin(content)
    with pytest.raises(DataError) as error:
        list(open_as("-"))
    assert said in str(error.value)
    assert "tmp" not in str(error.value)


def test_a_named_pipe_is_read_once_and_kept(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    thread = threading.Thread(target=lambda: (tmp_path / "fifo").write_text("text\na\nb\n"))
    thread.start()
    corpus = open_as(str(tmp_path / "fifo"), "csv")
    assert texts(corpus) == texts(corpus) == ["a", "b"]
    thread.join()


def test_stdin_twice_is_refused(stdin):
    stdin(b'{"text": "a"}\n')
    with pytest.raises(DataError, match="stdin: is named twice"):
        open_as(["-", "-"])


def test_a_closed_stdin_is_one_line(monkeypatch):
    pipes._copied.cache_clear()
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(DataError, match="stdin: cannot be read"):
        open_as("-")


def test_a_stdin_that_fails_is_no_full_disk(monkeypatch, stdin):
    def refuse(descriptor, size):
        raise OSError(errno.EIO, "Input/output error")

    stdin(b"text\na\n")
    monkeypatch.setattr(pipes.os, "read", refuse)
    with pytest.raises(DataError, match=r"stdin cannot be read \(Input/output error\)"):
        open_as("-")


def test_a_file_of_another_ending_is_read_as_its_format_says(tmp_path):
    (tmp_path / "a.log").write_text('{"text": "a"}\n')
    with pytest.raises(DataError, match="name the kind with --format"):
        open_as(str(tmp_path / "a.log"))
    assert texts(open_as(str(tmp_path / "a.log"), "jsonl")) == ["a"]
    (tmp_path / "b.csv").write_text("text\tn\na,b\t1\n")
    assert texts(open_as(str(tmp_path / "b.csv"), "tsv")) == ["a,b"]


UNQUOTED = 'text\tlabel\n"The tea was cold\t0\nsaid the cook"\t0\n"whole"\t1\n'


def test_a_quotation_mark_is_a_mark_where_nothing_is_quoted(tmp_path):
    (tmp_path / "a.tsv").write_text(UNQUOTED)
    assert texts(open_as(str(tmp_path / "a.tsv"), quoting="none")) == ['"The tea was cold', 'said the cook"', '"whole"']
    with pytest.raises(DataError, match="if the file knows no quoting, add --quoting none"):
        list(open_as(str(tmp_path / "a.tsv")))
    (tmp_path / "b.csv").write_text('text,n\n"a" b,1\n"c,2\n')
    assert texts(open_as(str(tmp_path / "b.csv"), quoting="none")) == ['"a" b', '"c']
    (tmp_path / "c.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(UsageError, match="only CSV and TSV have quotation marks"):
        open_as(str(tmp_path / "c.jsonl"), quoting="none")


def test_words_for_nothing_are_texts_in_a_file_of_text(tmp_path):
    """A file of text knows no missing values but the empty cell, which is no text."""
    (tmp_path / "a.csv").write_text("text,n\nNaN,1\nNA,2\nnull,3\nNone,4\n,5\n")
    corpus = open_as(str(tmp_path / "a.csv"), on_error="skip")
    assert texts(corpus) == ["NaN", "NA", "null", "None"]
    assert corpus.failed == 1
    (tmp_path / "b.jsonl").write_text('{"text": "NaN"}\n{"text": NaN}\n{"text": null}\n')
    corpus = open_as(str(tmp_path / "b.jsonl"), on_error="skip")
    assert (texts(corpus), corpus.failed) == (["NaN"], 2)


def test_the_verbs_read_stdin(recycle, tmp_path, tiny_bert):
    found = records(24)
    content = write_csv(tmp_path / "a.csv", found).read_text()
    options = ("--model", tiny_bert, "--cut", 2, "--max-length", 16)
    filled = recycle.json("precompute", "-", "acts", "--format", "csv", *options, cwd=tmp_path, stdin=content)
    assert filled["new_samples"] == 24
    options = ("--format", "csv", "--epochs", 1, "--output", "run", "--no-tensorboard")
    done = recycle.json("finetune", "-", "acts", "--eval", "a.csv", *options, cwd=tmp_path, stdin=content)
    assert done["samples"] == 24
    again = recycle("finetune", "-", "acts", "--eval", "-", *options, "--overwrite", cwd=tmp_path, stdin=content)
    assert (again.code, again.err.count("\n")) == (2, 1)
    assert "stdin can be read once" in again.err
    predicted = recycle.json("predict", "-", "run", "--store", "acts", "--format", "csv", cwd=tmp_path, stdin=content)
    assert (predicted["hits"], predicted["labelled_samples"]) == (24, 24)
