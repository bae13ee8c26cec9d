"""The state before the first block of an image model, and the cuts that `every` stands for."""

import pytest
import torch

from recycle_cli.errors import UsageError
from recycle_cli.models.vision.graph import GraphCutter
from recycle_cli.models.vision.modules import ModuleCutter
from recycle_cli.models.vision.split import split_images
from tests.models.vision.test_torchvision import load
from tests.models.vision.test_transformers import SIDE, tiny

BLOCKS = ["layer1.0", "layer1", "layer2.0", "layer2", "layer3.0", "layer3", "layer4.0", "layer4"]


def test_every_block_of_a_resnet_and_the_state_before_them():
    loaded = load("resnet18")
    cutter = GraphCutter(loaded.model, (3, 64, 64))
    assert [point.name for point in cutter.states] == ["maxpool", *BLOCKS]
    halves = split_images(loaded, cutter, ["every:2"], dtype="float32", state_0=True)
    assert halves.cuts == ("maxpool", "layer1", "layer2", "layer3", "layer4")
    assert split_images(loaded, cutter, ["0"], dtype="float32", state_0=True).cuts == ("maxpool",)
    assert split_images(loaded, cutter, ["0"], dtype="float32").cuts == ("0",)


def test_a_model_that_begins_with_its_first_block_has_no_state_before_it():
    loaded = load("mobilenet_v3_small")
    cutter = GraphCutter(loaded.model, (3, 64, 64))
    assert cutter.state_0 is None
    assert next(point.name for point in cutter.states) == "features.0"
    with pytest.raises(UsageError, match="has no cut before its first block"):
        split_images(loaded, cutter, ["0"], dtype="float32", state_0=True)


@pytest.mark.parametrize("family", ["vit", "dinov2", "swin", "resnet"])
def test_the_embeddings_of_a_model_of_transformers_are_its_state_0(family):
    model = tiny(family)
    cutter = ModuleCutter(model, (3, SIDE, SIDE))
    blocks = cutter.blocks
    first = cutter.states[0]
    assert "embed" in first.name
    assert cutter.blocks == blocks
    assert [point.name for point in cutter.states[1:]] == [point.name for point in cutter.points]
    assert cutter.resolve(first.name) == first
    images = torch.rand(5, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(7))
    with torch.inference_mode():
        whole = model(pixel_values=images).logits
        halves = cutter.head(first.name)(cutter.trunk([first.name])(images)[first.name])
    assert float((halves - whole).abs().max() / whole.abs().max()) <= 1e-4
    digests = {id(one) for _, one in cutter.trunk_tensors(first.name)}
    assert digests < {id(one) for _, one in cutter.trunk_tensors(cutter.points[0].name)}


def test_a_cutter_knows_it_by_the_name_that_a_store_has(tmp_path):
    cutter = ModuleCutter(tiny("vit"), (3, SIDE, SIDE))
    assert cutter.resolve("vit.embeddings").shape == (17, 16)
