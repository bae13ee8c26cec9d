"""Folders of texts, a folder a class; and folders that a system keeps for itself, of texts and of images."""

import pytest

from recycle_cli.corpus import IMAGE, holds_records
from recycle_cli.errors import DataError
from tests.corpora import open_corpus
from tests.records import records, write_csv


def refusal(source, **options):
    with pytest.raises(DataError) as error:
        list(open_corpus(source, labelled=True, **options))
    return str(error.value)


def write(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(root)


def rows(corpus):
    return [(one.id, one.sample.fields["text"], one.label) for one in corpus]


FILES = {
    "pos/2": "good\nday\n",
    "pos/1.txt": "\ufeffred\r\n",
    "neg/deep/x.text": "  bad \n",
    ".git/x": "no",
    "neg/.x": "no",
}


def test_a_file_is_a_text_and_its_folder_the_label(tmp_path):
    corpus = open_corpus(write(tmp_path, FILES), labelled=True)
    expected = [("neg/deep/x.text", "  bad ", "neg"), ("pos/1.txt", "red", "pos"), ("pos/2", "good\nday", "pos")]
    assert rows(corpus) == expected
    assert corpus.total == 3


def test_several_folders_are_one_corpus(tmp_path):
    one, two = write(tmp_path / "one", FILES), write(tmp_path / "two", {"pos/3": "new"})
    corpus = open_corpus([one, two], labelled=True)
    assert [label for _, _, label in rows(corpus)] == ["neg", "pos", "pos", "pos"]
    assert rows(corpus)[-1][0] == f"{two}/pos/3"


def test_texts_without_folders_have_no_labels(tmp_path):
    source = write(tmp_path, {"a.txt": "one\ntwo", "b": "three"})
    assert rows(open_corpus(source)) == [("a.txt", "one\ntwo", None), ("b", "three", None)]
    assert "texts without folders of classes have no labels; expected FOLDER/CLASS/TEXT" in refusal(source)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"a.csv": "text\nx\n"}, "is no saved dataset, and"),
        ({"train/a.csv": "text\nx\n", "test/a.csv": "text\nx\n"}, "to read such files, give a pattern"),
        ({"pos/a.jsonl.gz": "", "neg/b": "x"}, "holds many records"),
        ({"pos/a": "x", "neg/b.png": "x"}, "holds images, and the model takes texts"),
        ({"pos/a": "x", "neg/b": "y", "README": "z"}, "README lies beside the folders of the classes"),
        ({"train/pos/a": "x", "train/neg/b": "y", "test/pos/a": "x", "test/neg/b": "y"}, "are splits by their names"),
        ({"pos/a": "x", "neg/b": ""}, "the text in column 'text' is empty"),
        ({"pos/a": "x", "neg/b": b"\xff\xfe"}, "is not UTF-8"),
        ({"pos/a": "x", "neg/.b": "y"}, "the class holds no text"),
        ({".hidden/b": "y"}, "holds no text; expected"),
        (
            {"pos/a": "x", "neg/b": "version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 1\n"},
            "is a Git LFS pointer",
        ),
    ],
)
def test_what_is_no_folder_of_texts_is_refused(tmp_path, files, said):
    assert said in refusal(write(tmp_path, files))


def test_a_text_that_cannot_be_read_is_passed_over_alone(tmp_path):
    source = write(tmp_path, {"pos/a": "x", "neg/b": b"\xff\xfe", "neg/c.gz": b"no gzip", "neg/d": "y"})
    corpus = open_corpus(source, labelled=True, on_error="skip")
    assert [one.id for one in corpus] == ["neg/d", "pos/a"]
    assert corpus.failed == 2


OWN = ["@eaDir", "#recycle", "$RECYCLE.BIN", "@Recently-Snapshot", "~snapshot", ".@__thumb"]


@pytest.mark.parametrize("own", OWN)
@pytest.mark.parametrize("place", ["", "red/", "red/deep/"])
def test_folders_that_a_system_keeps_are_no_class_and_hold_no_sample(tmp_path, capsys, own, place):
    texts = write(tmp_path / "texts", {"red/a.txt": "x", "blue/deep/b.txt": "y", f"{place}{own}/a.txt": "thumb"})
    images = write(tmp_path / "images", {"red/a.png": "x", "blue/deep/b.png": "y", f"{place}{own}/a.png": "thumb"})
    assert [one.id for one in open_corpus(texts, labelled=True)] == ["blue/deep/b.txt", "red/a.txt"]
    corpus = open_corpus(images, form=IMAGE, labelled=True)
    assert [one.id for one in corpus] == ["blue/deep/b.png", "red/a.png"]
    said = capsys.readouterr().err.splitlines()
    assert len(said) == (0 if own.startswith(".") else 2)
    assert all(f"passing over folders of the name {own}" in line for line in said)


def test_what_is_a_store_and_what_are_records(tmp_path):
    (tmp_path / "a.csv").write_text("text\n")
    texts = write(tmp_path / "texts", {"red/a": "x"})
    class_of_that_name = write(tmp_path / "images", {"segments/a.png": "x", "wholes/b.png": "x"})
    given = [str(tmp_path / "a.csv"), str(tmp_path / "*.csv"), texts, class_of_that_name, "hub:imdb", "-"]
    assert all(map(holds_records, given))
    store = write(tmp_path / "store", {"zarr.json": "{}"})
    without_root = write(tmp_path / "without root", {"segments/zarr.json": "{}"})
    segments_alone = write(tmp_path / "segments alone", {"segments/20260101T000000/zarr.json": "{}"})
    (tmp_path / "empty").mkdir()
    nothing = [str(tmp_path / "none"), str(tmp_path / "*.tsv"), str(tmp_path / "empty"), "s3://x/y"]
    assert not any(map(holds_records, [store, without_root, segments_alone, *nothing]))


def test_a_training_from_folders_of_texts(recycle, tmp_path, tiny_bert):
    found = records(24)
    write(tmp_path / "tree", {f"{one['label']}/{place}": one["text"] for place, one in enumerate(found)})
    write_csv(tmp_path / "flat.csv", found)
    options = ("--model", tiny_bert, "--cut", 2, "--max-length", 16)
    recycle.json("precompute", "flat.csv", "acts", *options, cwd=tmp_path)
    again = recycle.json("precompute", "tree", "acts", *options, cwd=tmp_path)
    assert (again["samples"], again["new_samples"]) == (24, 0)
    options = ("--epochs", 1, "--output", "run", "--no-tensorboard")
    done = recycle.json("finetune", "tree", "acts", "--eval", "tree", *options, cwd=tmp_path)
    assert (done["samples"], done["classes"]) == (24, ["art", "bio", "code"])
    predicted = recycle.json("predict", "tree", "run", "--store", "acts", cwd=tmp_path)
    assert (predicted["hits"], predicted["metrics"]["accuracy"]) == (24, done["metrics"]["accuracy"])
