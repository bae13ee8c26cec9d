"""Images of every kind of source become the same samples, undecoded; what is no corpus ends in one line."""

import json
import runpy
import shutil
from pathlib import Path

import pyarrow
import pytest
from PIL import Image
from pyarrow.parquet import write_table

from recycle_cli.corpus import IMAGE, Columns
from recycle_cli.errors import DataError
from recycle_cli.keys import keys_of
from tests.corpora import open_corpus

ROOT = Path(__file__).parents[2]
SHAPES = ROOT / "sample_data" / "shapes"
CIFAR = ROOT.parent / "shared" / "data" / "images" / "cifar-10" / "test.parquet"


@pytest.fixture
def tree(tmp_path):
    for name in ("circle", "square"):
        (tmp_path / "tree" / name).mkdir(parents=True)
        for number in range(2):
            shutil.copy(SHAPES / "val" / name / f"{number:02d}.png", tmp_path / "tree" / name)
    (tmp_path / "tree" / "circle" / "notes.txt").write_text("no image")
    (tmp_path / "tree" / ".hidden").mkdir()
    return tmp_path / "tree"


def contents(tree):
    return [
        ((tree / name / f"{number:02d}.png").read_bytes(), name) for name in ("circle", "square") for number in (0, 1)
    ]


def found(source, **options):
    corpus = open_corpus(str(source), form=IMAGE, labelled=True, **options)
    return [(example.sample.fields["image"], example.label) for example in corpus]


def refusal(source, columns=None, **options):
    with pytest.raises(DataError) as caught:
        list(open_corpus(source if isinstance(source, list) else str(source), columns, form=IMAGE, **options))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_tree_of_folders_is_a_corpus(tree):
    assert found(tree) == contents(tree)
    corpus = open_corpus(str(tree), form=IMAGE)
    assert corpus.total == 4
    assert [sample.id for sample in corpus] == ["circle/00.png", "circle/01.png", "square/00.png", "square/01.png"]


def test_a_folder_without_classes_is_read_where_no_label_is_needed(tree):
    assert [sample.label for sample in open_corpus(str(tree / "circle"), form=IMAGE)] == [None, None]
    assert "without folders of classes have no labels" in refusal(tree / "circle", labelled=True)


def test_several_trees_are_one_corpus_whose_ids_say_which(tree, tmp_path):
    shutil.copytree(tree, tmp_path / "more")
    corpus = open_corpus([str(tree), str(tmp_path / "more")], form=IMAGE, labelled=True)
    assert corpus.total == 8
    assert [(one.sample.fields["image"], one.label) for one in corpus] == 2 * contents(tree)
    assert [one.id for one in corpus][3::4] == [f"{tree}/square/01.png", f"{tmp_path}/more/square/01.png"]
    unlabelled = open_corpus([str(tree), str(tmp_path / "more" / "circle")], form=IMAGE)
    assert [one.label for one in unlabelled] == [None] * 6
    assert "without folders of classes" in refusal([str(tree), str(tree / "circle")], labelled=True)


def test_image_files_are_a_corpus_without_labels(tree):
    corpus = open_corpus(str(tree / "*" / "*.png"), form=IMAGE)
    assert corpus.total == 4
    assert [one.sample.fields["image"] for one in corpus] == [content for content, _ in contents(tree)]
    assert [one.id for one in corpus][:1] == [f"{tree}/circle/00.png"]
    assert "without folders of classes" in refusal(tree / "*" / "*.png", labelled=True)


def test_images_for_a_model_of_texts_are_refused_with_the_remedy(tree):
    for source in (tree, tree / "circle", tree / "circle" / "00.png"):
        with pytest.raises(DataError, match=r"the model takes texts; name one that takes images \(--model"):
            open_corpus(str(source))


def test_folders_and_files_do_not_mix(tree, tmp_path):
    (tmp_path / "c.csv").write_text("path\ntree/circle/00.png\n")
    assert "is a folder, which cannot go with files" in refusal([str(tree), str(tmp_path / "c.csv")])


def test_links_are_followed_and_an_ending_decides_nothing_but_whether_it_is_read(tree):
    (tree / "circle" / "link.png").symlink_to(tree / "square" / "00.png")
    (tree / "square" / "wrong.jpg").write_bytes((tree / "square" / "00.png").read_bytes())
    (tree / "square" / "no-ending").write_bytes(b"passed over")
    assert [one.id for one in open_corpus(str(tree), form=IMAGE)][2::3] == ["circle/link.png", "square/wrong.jpg"]
    (tree / "circle" / "broken.png").symlink_to(tree / "nowhere.png")
    assert "circle/broken.png: the image cannot be read (No such file" in refusal(tree)


def test_tables_hold_bytes_or_paths(tree, tmp_path):
    images, labels = zip(*contents(tree), strict=True)
    structs = [{"bytes": image, "path": None} for image in images]
    for name, column in {"bytes": list(images), "struct": structs}.items():
        write_table(pyarrow.table({"image": column, "label": list(labels)}), tmp_path / f"{name}.parquet")
        assert found(tmp_path / f"{name}.parquet") == contents(tree)
    with pyarrow.ipc.new_stream(
        tmp_path / "a.arrow", (table := pyarrow.table({"img": structs, "label": labels})).schema
    ) as file:
        file.write_table(table)
    assert found(tmp_path / "a.arrow") == contents(tree)


def test_lines_hold_paths_relative_to_their_file(tree, tmp_path):
    rows = [(f"tree/{name}/{number:02d}.png", name) for name in ("circle", "square") for number in (0, 1)]
    (tmp_path / "c.csv").write_text("path,label\n" + "".join(f"{path},{name}\n" for path, name in rows))
    (tmp_path / "c.jsonl").write_text("".join(json.dumps({"file_name": p, "label": n}) + "\n" for p, n in rows))
    assert found(tmp_path / "c.csv") == found(tmp_path / "c.jsonl") == contents(tree)
    assert [one.id for one in open_corpus(str(tmp_path / "c.csv"), form=IMAGE)] == [path for path, _ in rows]


def test_a_saved_dataset_is_still_one(tree, tmp_path):
    import datasets

    images, labels = zip(*contents(tree), strict=True)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["circle", "square"])})
    records = {"image": [{"bytes": image, "path": None} for image in images], "label": list(labels)}
    datasets.Dataset.from_dict(records, features).save_to_disk(tmp_path / "saved")
    assert found(tmp_path / "saved") == contents(tree)


def test_keys_are_of_the_bytes_alone(tree, tmp_path):
    shutil.copytree(tree, tmp_path / "moved")
    one, other = (keys_of(list(open_corpus(str(root), form=IMAGE).samples())) for root in (tree, tmp_path / "moved"))
    assert (one[0] == other[0]).all()


def test_what_is_no_corpus_of_images_is_refused(tree, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "holds no image" in refusal(tmp_path / "empty")
    shutil.copy(tree / "circle" / "00.png", tree / "stray.png")
    assert "stray.png lies beside the folders" in refusal(tree)
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    assert "--image-column" in refusal(tmp_path / "x.csv")
    assert "--text-column has no meaning" in refusal(tmp_path / "x.csv", Columns(text="a"))
    (tmp_path / "y.csv").write_text("path,label\nnot-there.png,a\n")
    assert "not-there.png cannot be read (No such file or directory)" in refusal(tmp_path / "y.csv")
    (tmp_path / "z.jsonl").write_text('{"image": 7}\n')
    assert "holds an integer, expected an image's bytes" in refusal(tmp_path / "z.jsonl")


def test_a_class_without_images_is_refused_or_listed(tree):
    (tree / "triangle").mkdir()
    assert "triangle: the class holds no image" in refusal(tree)
    failures = []
    corpus = open_corpus(str(tree), form=IMAGE, on_error="skip", on_failure=failures.append)
    assert len(list(corpus)) == 4
    assert [failure.id for failure in failures] == ["triangle"]


def test_cifar_10_is_read():
    if not CIFAR.is_file():
        pytest.skip("needs CIFAR-10")
    corpus = open_corpus(str(CIFAR), form=IMAGE, labelled=True, limit=3)
    assert [sample.label for sample in corpus] == ["truck", "cat", "horse"]
    assert corpus.total == 3


def test_the_sample_images_are_those_that_the_script_draws(tmp_path):
    runpy.run_path(str(ROOT / "sample_data" / "make_images.py"))["main"](tmp_path)
    drawn = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.png"))
    assert drawn == sorted(path.relative_to(SHAPES) for path in SHAPES.rglob("*.png"))
    for path in drawn[::17]:
        with Image.open(tmp_path / path) as new, Image.open(SHAPES / path) as old:
            assert new.convert("RGB").tobytes() == old.convert("RGB").tobytes()
