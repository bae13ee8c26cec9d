"""The kinds of input are a table: a third one is an entry, and no file of the package changes."""

from dataclasses import replace

import pytest
import torch

from recycle_cli.errors import UsageError
from recycle_cli.models import MODALITIES, AnyLoaded, NamedModel, Preprocessor, views_of
from recycle_cli.models.task_layer import TaskLayer
from recycle_cli.settings import ImageSettings, ModelSettings, ViewSettings
from tests.toys import TABLE, table

TOY = ModelSettings("toy-table", device="cpu")


@pytest.fixture(autouse=True)
def tables(monkeypatch):
    toy = replace(TABLE, found_again=lambda model, provenance, recipe: replace(model, revision=provenance["columns"]))
    monkeypatch.setitem(MODALITIES, "table", toy)


def test_a_third_modality_is_opened_split_and_found_again():
    assert NamedModel(TOY).modality == "table"
    network = NamedModel(TOY).open(TaskLayer(labels=("a", "b", "c")), seed=4)
    loaded: AnyLoaded = network.loaded
    assert loaded.labels == ("a", "b", "c")
    split = network.split(("1", "2"), "float32")
    preprocessor: Preprocessor = split.preprocessor
    prepared = split.prepare([table("0", [[1, 2, 3, 4], [0, 0, 1, 1]]), table("1", [[9, 8, 7, 6]])])
    assert preprocessor.lengths(prepared).tolist() == [2, 1]
    batch = split.collate(prepared)
    rows, lengths = split.trunk(batch), batch["attention_mask"].sum(1)
    for cut in split.cuts:
        halves = split.head_from(cut)(rows[cut].clone(), lengths)
        torch.testing.assert_close(halves, split.full(batch))
    found = NamedModel(ModelSettings("other")).found_again(
        {"model": "toy-table", "columns": "4"}, split.recipe, named=False
    )
    assert (found.name, found.settings.revision) == ("toy-table", "4")


def test_without_a_way_from_cut_to_cut_that_is_said():
    split = NamedModel(TOY).open().split(("1", "2"), "float32")
    with pytest.raises(UsageError, match="cannot take rows from cut 1 to cut 2"):
        split.between("1", "2")


def test_its_cuts_are_listed():
    rows, length = NamedModel(TOY).layers("float16")
    assert [row.cut for row in rows] == ["1", "2", "3"]
    assert length is None
    with pytest.raises(UsageError, match="--image-size 64: toy-table takes tables; leave the option out"):
        NamedModel(replace(TOY, images=ImageSettings(resize=(64,)))).layers("float16")


@pytest.mark.parametrize(
    ("changes", "name", "modality", "message"),
    [
        ({"max_length": 9}, "toy", "table", "--max-length 9: toy takes tables, not texts; leave the option out"),
        ({"max_length": 9}, "vit", "image", "--max-length 9: vit takes images, not texts; leave the option out"),
        (
            {"images": ImageSettings("none", crop=(8,), head_batchnorm="eval")},
            "bert",
            "text",
            "--weights, --crop, --head-batchnorm: bert takes texts, not images; leave the options of images out",
        ),
    ],
)
def test_options_of_another_modality_are_refused(changes, name, modality, message):
    model = replace(TOY, **changes)
    with pytest.raises(UsageError) as caught:
        NamedModel(model).refuse_foreign(name, modality)
    assert str(caught.value) == message
    NamedModel(model).refuse_foreign(name, "text" if "max_length" in changes else "image")


def test_the_models_that_others_take(tiny_bert):
    assert NamedModel(ModelSettings("resnet18")).modality == "image"
    assert NamedModel(ModelSettings(str(tiny_bert))).modality == "text"
    assert NamedModel(ModelSettings("nobody/nothing")).modality == "text"


def test_only_images_have_views():
    assert len(views_of(ViewSettings(2), "image")) == 2
    assert views_of(ViewSettings(), "table") == []
    with pytest.raises(UsageError, match="--views 2: only images have views"):
        views_of(ViewSettings(2), "table")
