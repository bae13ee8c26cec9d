"""The kinds of input are a table: a third one is an entry, and no file of the package changes."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from recycle_cli.errors import UsageError
from recycle_cli.keys import Sample
from recycle_cli.models import (
    MODALITIES,
    AnyLoaded,
    Layer,
    Modality,
    NamedModel,
    Network,
    Preprocessor,
    SplitModel,
    bytes_per_sample,
    views_of,
)
from recycle_cli.models.eval_mode import evaluating, freeze
from recycle_cli.models.identity import weights_digest
from recycle_cli.models.task_layer import TaskLayer
from recycle_cli.recipe import Recipe, canonical_digest
from recycle_cli.settings import ImageSettings, ModelSettings, ViewSettings

WIDTH = 6
TOY = ModelSettings("toy-table", device="cpu")


class Toy(nn.Module):
    """Rows of numbers through three layers, the mean of a table's rows to scores."""

    def __init__(self, classes: int, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.blocks = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3))
            torch.manual_seed(seed)
            self.classifier = nn.Linear(WIDTH, classes)


@dataclass(frozen=True)
class TableInputs:
    """Tables written as lines of numbers; a line is a row."""

    modality = "table"
    row_cost = 1
    digest = canonical_digest({"columns": WIDTH})

    def prepare(self, samples):
        lines = [str(sample.fields["table"]).splitlines() for sample in samples]
        return [{"numbers": np.array([list(map(float, line.split())) for line in some], np.float32)} for some in lines]

    def collate(self, prepared):
        lengths = torch.tensor(self.lengths(prepared))
        tables = [torch.from_numpy(one["numbers"]) for one in prepared]
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        return {"numbers": nn.utils.rnn.pad_sequence(tables, batch_first=True), "attention_mask": mask.long()}

    def lengths(self, prepared):
        return np.array([len(one["numbers"]) for one in prepared], dtype=np.int64)


@dataclass(frozen=True)
class LoadedToy:
    name: str
    model: Any
    labels: tuple[str, ...]
    missing: frozenset[str] = frozenset({"classifier.weight", "classifier.bias"})
    library: str = "torch"
    loads_with: str = "torch.load"
    saved: list[Path] = field(default_factory=list)

    def save(self, folder: Path, max_length: int | None) -> None:
        self.saved.append(folder)


def through(model, rows, first, last):
    for block in model.blocks[first:last]:
        rows = torch.tanh(block(rows))
    return rows


def split_toy(model, cuts, dtype):
    names = tuple(sorted(cuts))

    def trunk(batch):
        with evaluating(model), torch.inference_mode():
            return {cut: through(model, batch["numbers"], 0, int(cut)) for cut in names}

    def scores(rows, lengths):
        mask = (torch.arange(rows.shape[1]) < lengths[:, None])[..., None]
        return model.classifier((rows * mask).sum(1) / lengths[:, None])

    def head_from(cut):
        return lambda rows, lengths: scores(through(model, rows, int(cut), 3), lengths)

    def owned(cut, wanted):
        blocks = [f"blocks.{number}." for number in range(int(cut))]
        return [(name, one) for name, one in model.named_parameters() if name.startswith(tuple(blocks)) is wanted]

    return SplitModel(
        recipe=Recipe(
            modality="table",
            architecture={"name": "toy"},
            cuts={cut: weights_digest(owned(cut, True)) for cut in names},
            preprocessor=TableInputs.digest,
            dtype=dtype,
        ),
        cuts=names,
        blocks=3,
        row_shape=(WIDTH,),
        model=model,
        preprocessor=TableInputs(),
        trunk=trunk,
        head=head_from(names[-1]),
        head_from=head_from,
        full=lambda batch: scores(through(model, batch["numbers"], 0, 3), batch["attention_mask"].sum(1)),
        head_parameters=lambda cut: owned(cut, False),
        trunk_parameters=lambda cut: owned(cut, True),
        freeze=lambda cut: freeze(model, [one for _, one in owned(cut, True)], model.blocks[: int(cut)]),
    )


def open_toy(source, settings, layer, seed):
    classes = layer.labels or ("no", "yes")
    loaded = LoadedToy(source.name, Toy(len(classes), seed), classes)
    return Network(
        loaded,
        split=lambda cuts, dtype: split_toy(loaded.model, cuts, dtype),
        resolve=lambda cut, split: cut,
        provenance={"columns": str(WIDTH)},
    )


TABLES = Modality(
    "table",
    "tables",
    recognises=lambda name, revision: name.startswith("toy-"),
    open=open_toy,
    layers=lambda source, settings, dtype: (
        [
            Layer(str(cut), cut / 3, cut / 3, cut / 4, (WIDTH,), bytes_per_sample((WIDTH,), 1, dtype))
            for cut in (1, 2, 3)
        ],
        None,
    ),
    found_again=lambda model, provenance, recipe: replace(model, revision=provenance["columns"]),
)


@pytest.fixture(autouse=True)
def tables(monkeypatch):
    monkeypatch.setitem(MODALITIES, "table", TABLES)


def test_a_third_modality_is_opened_split_and_found_again():
    assert NamedModel(TOY).modality == "table"
    network = NamedModel(TOY).open(TaskLayer(labels=("a", "b", "c")), seed=4)
    loaded: AnyLoaded = network.loaded
    assert loaded.labels == ("a", "b", "c")
    split = network.split(("1", "2"), "float32")
    preprocessor: Preprocessor = split.preprocessor
    prepared = split.prepare(
        [Sample("0", {"table": "1 2 3 4 5 6\n0 0 1 1 0 0"}), Sample("1", {"table": "9 8 7 6 5 4"})]
    )
    assert preprocessor.lengths(prepared).tolist() == [2, 1]
    batch = split.collate(prepared)
    rows, lengths = split.trunk(batch), batch["attention_mask"].sum(1)
    for cut in split.cuts:
        halves = split.head_from(cut)(rows[cut].clone(), lengths)
        torch.testing.assert_close(halves, split.full(batch))
    found = NamedModel(ModelSettings("other")).found_again(
        {"model": "toy-table", "columns": "6"}, split.recipe, named=False
    )
    assert (found.name, found.settings.revision) == ("toy-table", "6")


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
