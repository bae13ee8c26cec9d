"""What crosses at one cut of an image model taken to a later one, by the graph and by the modules."""

import pytest
import torch
import torchvision

from recycle_cli.errors import UsageError
from recycle_cli.models import NamedModel
from recycle_cli.models.vision.graph import GraphCutter
from recycle_cli.models.vision.modules import ModuleCutter
from recycle_cli.models.vision.sources import LoadedImages
from recycle_cli.models.vision.split import split_images
from recycle_cli.models.vision.transforms import ImageTransform
from tests.images import noise
from tests.models.vision.test_torchvision import FAST, SMALL, cutter_of, load, pixels, stir
from tests.models.vision.test_transformers import FAMILIES, SIDE, saved, tiny

ONES = torch.ones(2)


def spread(names, count=5):
    """A few of the names, the first and the last among them."""
    return sorted({names[round(place * (len(names) - 1) / (count - 1))] for place in range(count)}, key=names.index)


def check(split, batch, tolerance):
    """Every cut to every later one; the batch's images differ, so that rows of one are not those of another."""
    rows = split.trunk(batch)
    for place, cut in enumerate(split.cuts):
        for later in split.cuts[place + 1 :]:
            given = rows[cut].clone()
            advanced = split.between(cut, later)(given, ONES)
            assert advanced.shape == rows[later].shape
            assert torch.equal(given, rows[cut]), "the caller's rows are left alone"
            limit = tolerance * float(rows[later].abs().max())
            assert float((advanced - rows[later]).abs().max()) <= limit, (cut, later)


def made(model, side):
    transform = ImageTransform((side, side), (), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    return LoadedImages("it", model, transform, ("a", "b", "c"), {}, "none", "", "", lambda folder: None)


def split_of(model, cutter, side):
    cuts = spread([point.name for point in cutter.points])
    return split_images(made(model, side), cutter, cuts, dtype="float32")


@pytest.mark.parametrize("name", FAST)
def test_torchvision_by_graph(name):
    loaded = load(name)
    cutter = cutter_of(loaded)
    split = split_images(loaded, cutter, spread([point.name for point in cutter.points]), dtype="float32")
    check(split, pixels(2, 64), 1e-6)


@pytest.mark.parametrize("family", SMALL)
def test_every_family_of_torchvision_by_graph(family):
    model = SMALL[family]().eval()
    stir(model)
    check(split_of(model, GraphCutter(model, (3, 32, 32)), 32), pixels(2, 32), 1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_by_modules(family):
    model = tiny(family)
    check(split_of(model, ModuleCutter(model, (3, SIDE, SIDE)), SIDE), pixels(2, SIDE), 1e-6)


def test_the_mode_is_left_alone_and_nothing_has_a_gradient(tmp_path):
    split = NamedModel(saved(tmp_path, "resnet")).open().split(["25%", "100%"], "float32")
    first, last = split.cuts
    rows = split.trunk(split.collate(split.prepare(noise(2))))[first]
    before = {name: tensor.clone() for name, tensor in split.model.state_dict().items()}
    quiet = split.between(first, last)(rows, ONES)
    split.model.train()
    assert torch.equal(split.between(first, last)(rows, ONES), quiet)
    assert quiet.is_inference()
    assert split.model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in split.model.state_dict().items())


def test_a_cut_that_is_not_known_or_not_later_is_refused():
    model = torchvision.models.resnet18(num_classes=3).eval()
    split = split_images(made(model, 32), GraphCutter(model, (3, 32, 32)), ["0", "layer1", "layer3"], dtype="float32")
    with pytest.raises(UsageError, match="cut 'layer2': the model was split at"):
        split.between("layer1", "layer2")
    with pytest.raises(UsageError, match="rows at cut layer3 cannot be taken to cut layer1: expected a cut after"):
        split.between("layer3", "layer1")
    with pytest.raises(UsageError, match="cannot be taken to cut 0"):
        split.between("layer1", "0")
    with pytest.raises(UsageError, match="cut 0 has no rows"):
        split.between("0", "layer1")
