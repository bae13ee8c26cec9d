"""Files and labels that are not what they look like are refused in one line, and not taken for data."""

import bz2
import gzip
import json
import lzma
import os
import shutil

import pyarrow
import pytest
from pyarrow.parquet import write_table

from recycle_cli.corpus import IMAGE, Columns, several_labels
from recycle_cli.errors import DataError
from tests.corpora import open_corpus
from tests.corpus.test_corpus import refusal, rows, texts
from tests.corpus.test_image_corpus import SHAPES

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + 64 * b"4" + b"\nsize 12345678\n"
POINTERS = {
    "lfs": (LFS, "git lfs pull"),
    "lfs-crlf": (LFS.replace(b"\n", b"\r\n"), "git lfs pull"),
    "lfs-ext": (LFS.replace(b"\noid", b"\next-0-foo sha256:12\noid"), "git lfs pull"),
    "lfs-old": (LFS.replace(b"git-lfs.github.com", b"hawser.github.com"), "git lfs pull"),
    "annex": (b"/annex/objects/SHA256E-s123--" + 64 * b"a" + b".csv\n", "git annex get"),
}


def zstd(content: bytes) -> bytes:
    return pyarrow.compress(content, codec="zstd", asbytes=True)


@pytest.fixture
def tree(tmp_path):
    for name in ("circle", "square"):
        (tmp_path / "tree" / name).mkdir(parents=True)
        for number in range(2):
            shutil.copy(SHAPES / "val" / name / f"{number:02d}.png", tmp_path / "tree" / name)
    return tmp_path / "tree"


COMPRESS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd}


# Pointers


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".txt", ".jsonl", ".parquet", ".arrow", ".csv.gz", ".txt.zst"])
def test_a_pointer_is_no_corpus_of_any_kind(write, ending):
    assert "is a Git LFS pointer in place of the data" in refusal(write(f"a{ending}", LFS))


@pytest.mark.parametrize("kind", POINTERS)
def test_pointers_of_every_kind_are_known(write, kind):
    content, remedy = POINTERS[kind]
    assert remedy in refusal(write("a.txt", content))


def test_a_text_about_pointers_is_a_text(write):
    text = "version https://git-lfs.github.com/spec/v1\nis the first line\nof a pointer"
    assert texts(open_corpus(write("a.txt", text))) == text.split("\n")


def test_an_image_that_is_a_pointer_is_a_record_that_says_so(tree, write):
    (tree / "circle" / "00.png").write_bytes(LFS)
    assert "circle/00.png: the image is a Git LFS pointer" in refusal(str(tree), form=IMAGE)
    table = write("a.csv", f"image,label\n{tree}/circle/00.png,x\n")
    assert "00.png is a Git LFS pointer" in refusal(table, form=IMAGE)


def test_a_saved_dataset_whose_tables_are_pointers_says_so(tmp_path):
    import datasets

    datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(tmp_path / "saved")
    next((tmp_path / "saved").glob("*.arrow")).write_bytes(LFS)
    assert "is a Git LFS pointer" in refusal(str(tmp_path / "saved"))


# Compressed files


@pytest.mark.parametrize("ending", COMPRESS)
def test_a_compressed_file_reads_to_its_end_and_no_cut_passes(write, ending):
    lines = [os.urandom(20).hex() for _ in range(500)]
    content = ("\n".join(lines) + "\n").encode()
    two = [COMPRESS[ending](content), COMPRESS[ending](b"and a second stream\n")]
    assert texts(open_corpus(write(f"data[1]::x.txt{ending}", b"".join(two)))) == [*lines, "and a second stream"]
    for size in (0, 3, len(two[0]) // 2, len(two[0]) - 1, len(two[0]) + 5, len(two[0]) + len(two[1]) - 1):
        reason = refusal(write(f"cut.txt{ending}", b"".join(two)[:size]), on_error="skip")
        assert "cut.txt" in reason
        assert "cannot be read" in reason
    assert "cannot be read" in refusal(write(f"more.txt{ending}", two[0] + b"no stream at all"))
    if ending == ".zst":
        return  # what pyarrow compresses has no checksum
    broken = bytearray(two[0])
    broken[len(broken) // 2] ^= 1
    assert "cannot be read" in refusal(write(f"bit.txt{ending}", bytes(broken)))


def test_a_stream_of_arrow_that_ends_between_two_batches_is_refused(tmp_path):
    path, table = tmp_path / "a.arrow", pyarrow.table({"text": ["one", "two"]})
    with pyarrow.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=1)
    assert texts(open_corpus(str(path))) == ["one", "two"]
    path.write_bytes(path.read_bytes()[:-8])
    assert "it ends early" in refusal(str(path))


# Tables of text


@pytest.mark.parametrize("again", ["text,label", "\ufefftext,label", '"text","label"', " text , label "])
def test_a_first_row_that_is_repeated_is_no_record(write, again):
    path = write("a.csv", f"text,label\none,x\n{again}\ntwo,y\n")
    assert "record 2: it repeats the first row" in refusal(path)
    corpus = open_corpus(path, on_error="skip", labelled=True)
    assert rows(corpus) == [("0", "one", "x"), ("2", "two", "y")]
    assert corpus.failed == 1


def test_a_first_row_that_is_repeated_in_another_order_ends_the_reading(write):
    path = write("a.csv", "text,label\none,x\nlabel,text\ny,two\n")
    assert "record 2: names the columns again, in another order" in refusal(path, on_error="skip")


@pytest.mark.parametrize(
    "content",
    [
        'sentence\tlabel\n"The tea was cold\t0\nthe cake was fine\t1\nsaid the cook"\t0\nthe soup was warm\t1\n',
        'label\tsentence\n0\t"The tea was cold\n1\tsaid the cook"\n',
        'id\tone\ttwo\tlabel\n1\t"Tea\tcake\t0\n2\tsoup\t"bread"\t1\n3\tx\ty"\t1\n',
        'sentence\n"The tea was cold\nsaid the cook"\n',
    ],
)
def test_tab_separated_values_that_know_no_quoting_are_not_read_by_its_rules(write, content):
    columns = Columns(text="two" if "two" in content else "sentence")
    assert "if the file knows no quoting, add --quoting none" in refusal(write("a.tsv", content), columns)


def test_tab_separated_values_with_quoting_are_read_by_its_rules(write):
    content = 'text\tlabel\n"one\ntwo"\tx\n"a ""b""\tc"\ty\n"last\n\nline"\t"z\n"\n'
    expected = [("0", "one\ntwo", "x"), ("1", 'a "b"\tc', "y"), ("2", "last\n\nline", "z\n")]
    assert rows(open_corpus(write("a.tsv", content), labelled=True)) == expected


# Labels


@pytest.mark.parametrize(
    "labels",
    [
        [[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]],
        [[1, 0, 0], [0, 1, 1]],
        [["1", "0", "0"], ["0", "1", "1"]],
        [["yes", "no", "no"], ["no", "yes", "yes"]],
        [[True, False], [False, True]],
        [[0.7, 0.3], [0.2, 0.8]],
        ["1|0|0", "0|1|1"],
    ],
)
def test_vectors_of_flags_are_no_names(write, labels):
    lines = [json.dumps({"text": f"text {place}", "labels": one}) for place, one in enumerate(labels)]
    path = write("a.jsonl", "\n".join(lines))
    assert "a vector of flags or scores" in refusal(path, read_label=several_labels, labelled=True)


@pytest.mark.parametrize("kind", [pyarrow.list_(pyarrow.float32()), pyarrow.list_(pyarrow.int8(), 3)])
def test_vectors_of_flags_in_a_table_are_no_names(tmp_path, kind):
    flags = pyarrow.array([[1, 0, 0], [0, 0, 0]], pyarrow.list_(pyarrow.int8())).cast(kind)
    write_table(pyarrow.table({"text": ["a", "b"], "label": flags}), tmp_path / "a.parquet")
    assert "a vector of flags" in refusal(str(tmp_path / "a.parquet"), read_label=several_labels, labelled=True)


# Folders


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Training", "Testing"), ("train2017", "val2017", "misc")])
def test_folders_named_as_splits_are_no_classes(tree, tmp_path, names):
    for name in names:
        shutil.copytree(tree / "circle", tmp_path / "root" / name)
    options = {"form": IMAGE, "labelled": True}
    reason = refusal(str(tmp_path / "root"), **options)
    assert "are splits by their names, expected classes" in reason
    assert "are splits" in refusal([str(tree), str(tmp_path / "root")], **options)
    assert len(list(open_corpus(str(tmp_path / "root"), form=IMAGE))) == 2 * len(names)
    said = open_corpus(str(tmp_path / "root"), Columns(label="label"), **options)
    assert {one.label for one in said} == set(names)


@pytest.mark.parametrize("names", [("fold1", "fold2"), ("train", "rest"), ("a", "b")])
def test_folders_that_hold_the_same_folders_are_no_classes(tree, tmp_path, names):
    for name in names:
        shutil.copytree(tree, tmp_path / "root" / name)
    reason = refusal(str(tmp_path / "root"), form=IMAGE, labelled=True)
    assert "hold folders of the same names (circle, square)" in reason
    assert len(list(open_corpus(str(tmp_path / "root" / names[0]), form=IMAGE, labelled=True))) == 4


def test_classes_may_hold_a_folder_of_one_name_each(tree, tmp_path):
    for name in ("circle", "square"):
        shutil.copytree(tree / name, tmp_path / "root" / name / "images")
    labels = [one.label for one in open_corpus(str(tmp_path / "root"), form=IMAGE, labelled=True)]
    assert labels == ["circle", "circle", "square", "square"]


@pytest.mark.parametrize(("link", "target"), [("circle/up", ".."), ("circle/b", "../square"), ("z", "circle")])
def test_a_folder_that_a_link_leads_to_again_is_refused(tree, link, target):
    (tree / link).symlink_to(target)
    corpus = open_corpus(str(tree), form=IMAGE, labelled=True)
    with pytest.raises(DataError, match="again, through a link; remove the link"):
        list(corpus)
    with pytest.raises(DataError, match="again, through a link"):
        _ = corpus.total


def test_a_link_to_a_folder_outside_is_read_once(tree, tmp_path):
    shutil.move(tree / "square", tmp_path / "elsewhere")
    (tree / "square").symlink_to(tmp_path / "elsewhere")
    assert [one.label for one in open_corpus(str(tree), form=IMAGE)] == ["circle", "circle", "square", "square"]


def test_a_file_that_a_pattern_finds_twice_through_links_is_refused(tmp_path, write):
    write("a.csv", "text\none\n")
    (tmp_path / "up").symlink_to(".")
    assert "again, through a link" in refusal(str(tmp_path / "**" / "*.csv"))
    (tmp_path / "up").unlink()
    (tmp_path / "b.csv").symlink_to("a.csv")
    assert "are the same file, through a link" in refusal(str(tmp_path / "*.csv"))
