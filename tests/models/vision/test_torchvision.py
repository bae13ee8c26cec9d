"""Torchvision's models by tracing: head after trunk is the whole model, and what is said of a cut is true."""

import copy

import pytest
import torch
import torchvision

from recycle_cli.errors import ModelError, UsageError
from recycle_cli.models.vision.graph import GraphCutter
from recycle_cli.models.vision.points import resolve_point
from recycle_cli.models.vision.sources import architectures, load_torchvision
from recycle_cli.models.vision.split import split_images
from recycle_cli.models.vision.transforms import ImageTransform, changed
from recycle_cli.models.vision.weights import preset_of

TOLERANCE = 1e-4
FAST = (
    "googlenet",
    "mnasnet0_5",
    "mobilenet_v3_small",
    "regnet_y_400mf",
    "resnet18",
    "shufflenet_v2_x0_5",
    "squeezenet1_1",
)
"""The small ones; the rest are marked long, and their families tested on small models of their classes."""

SIZES = {"inception_v3": 96, "maxvit_t": 224, "vit_h_14": 42, "alexnet": 64}
"""Small images, of a size that the architecture takes; 64 pixels for the others."""


def load(name, size=64, labels=("a", "b", "c"), seed=0):
    transform = ImageTransform((size, size), (), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    loaded = load_torchvision(name, labels=labels, weights="none", transform=transform, seed=seed)
    stir(loaded.model)
    settle(loaded.model, transform.normalised(pixels(4, size, seed=2)["pixel_values"]))
    return loaded


def stir(model):
    """Move what a fresh model has at zero or one, so that no term of it can go missing unseen."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point() and (tensor.ndim < 2 or not tensor.any()):
                noise = torch.rand(tensor.shape, generator=generator)
                tensor.copy_(noise + 0.5 if name.endswith(("running_var", "weight")) else noise * 0.2)


def settle(model, images):
    """Give BatchNorm the statistics of some images: without them the images' part fades from layer to layer in the
    EfficientNets and MNASNets, until the logits hardly depend on them and any head would do."""
    layers = [module for module in model.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)]
    for layer in layers:
        layer.train()
        layer.momentum = 1.0
    with torch.inference_mode():
        model(images)
    model.eval()


def cutter_of(loaded):
    return GraphCutter(loaded.model, (3, *loaded.transform.size))


def pixels(count, size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {"pixel_values": torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8)}


def relative(one, other):
    return float((one - other).abs().max() / other.abs().max())


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.long) for name in architectures()]
)
def test_head_after_trunk_is_the_whole_model(name, record_property):
    """`--junitxml` keeps the number of cuts and the largest error of each model."""
    size = SIZES.get(name, 64)
    loaded = load(name, size)
    cutter = cutter_of(loaded)
    points = cutter.points
    cuts = [points[0].name, points[len(points) // 2].name, points[-1].name]
    split = split_images(loaded, cutter, cuts, dtype="float32")
    batch = pixels(2, size)
    rows = split.trunk(batch)
    with torch.inference_mode():
        whole = split.full(batch)
        apart = relative(whole.flip(0), whole)
        assert apart > 100 * TOLERANCE, "the logits must tell one image from the other"
        errors = []
        for point in (points[0], points[len(points) // 2], points[-1]):
            assert rows[point.name].shape == (2, 1, *point.shape)
            head = split.head_from(point.name)
            errors.append(relative(head(rows[point.name], torch.ones(2)), whole))
            # The rows the other way round give the logits the other way round: the head goes by its rows.
            assert relative(head(rows[point.name].flip(0), torch.ones(2)).flip(0), whole) < 0.1 * apart
    record_property("cuts", len(points))
    record_property("error", max(errors))
    assert max(errors) <= TOLERANCE


SMALL = {
    "vit": lambda: torchvision.models.VisionTransformer(32, 8, 3, 2, 16, 32, num_classes=3),
    "swin": lambda: torchvision.models.SwinTransformer([4, 4], 8, [1, 2], [2, 2], [4, 4], num_classes=3),
    "swin_v2": lambda: torchvision.models.SwinTransformer(
        [4, 4],
        8,
        [2, 2],
        [2, 2],
        [4, 4],
        num_classes=3,
        block=torchvision.models.swin_transformer.SwinTransformerBlockV2,
        downsample_layer=torchvision.models.swin_transformer.PatchMergingV2,
    ),
    "densenet": lambda: torchvision.models.DenseNet(4, (2, 2), 8, num_classes=3),
    "convnext": lambda: torchvision.models.ConvNeXt(
        [torchvision.models.convnext.CNBlockConfig(8, 16, 2), torchvision.models.convnext.CNBlockConfig(16, None, 2)],
        num_classes=3,
    ),
    "maxvit": lambda: torchvision.models.MaxVit((32, 32), 8, 4, [8, 16], [1, 1], 4, 0.1, num_classes=3),
}


@pytest.mark.parametrize("family", SMALL)
def test_every_cut_of_a_family_gives_the_whole_model(family):
    model = SMALL[family]().eval()
    stir(model)
    cutter = GraphCutter(model, (3, 32, 32))
    assert len(cutter.points) > 5
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        whole = model(images)
        rows = cutter.trunk([point.name for point in cutter.points])(images)
        for point in cutter.points:
            assert rows[point.name].shape == (2, *point.shape)
            assert relative(cutter.head(point.name)(rows[point.name]), whole) <= TOLERANCE


@pytest.fixture(scope="module")
def resnet():
    loaded = load("resnet18")
    return loaded, cutter_of(loaded)


def test_cuts_of_resnet_are_its_blocks(resnet):
    points = {point.name: point for point in resnet[1].points}
    assert {"conv1", "maxpool", "layer1.0", "layer1", "layer2", "layer3", "layer4", "avgpool", "flatten"} <= set(points)
    assert points["layer2"].shape == (128, 8, 8)
    assert "layer2.1" in points["layer2"].aliases
    assert "fc" not in points, "behind the classifier there is nothing to train"
    shares = [point.flops for point in resnet[1].points]
    assert shares == sorted(shares)
    assert 0 < shares[0] < shares[-1] <= 1


def test_share_of_flops_is_the_counted_one(resnet):
    loaded, cutter = resnet
    from torch.utils.flop_counter import FlopCounterMode

    model, images = loaded.model, torch.zeros(1, 3, 64, 64)
    with FlopCounterMode(display=False) as whole:
        model(images)
    with FlopCounterMode(display=False) as part:
        model.layer2(model.layer1(model.maxpool(model.relu(model.bn1(model.conv1(images))))))
    point = next(point for point in cutter.points if point.name == "layer2")
    assert point.flops == pytest.approx(part.get_total_flops() / whole.get_total_flops(), rel=1e-6)
    trunk = sum(
        one.numel() for name, one in model.named_parameters() if name.startswith(("conv1", "bn1", "layer1", "layer2"))
    )
    assert cutter.parameter_share(point.name) == pytest.approx(
        trunk / sum(one.numel() for one in model.parameters()), rel=1e-9
    )


@pytest.mark.parametrize(
    ("share", "name"), [("50%", "layer2"), ("75%", "layer3"), ("100%", "avgpool"), ("layer3.1", "layer3")]
)
def test_a_cut_is_named_by_share_or_module(resnet, share, name):
    point = resolve_point(share, resnet[1].points, resnet[1].others)
    assert point is not None
    assert point.name == name


def test_0_is_the_whole_model(resnet):
    assert resolve_point("0", resnet[1].points, resnet[1].others) is None
    split = split_images(*resnet, ["0"], dtype="float32")
    assert split.cuts == ("0",)
    assert len(split.head_parameters("0")) == len(list(resnet[0].model.parameters()))


@pytest.mark.parametrize("cut", ["layer3.0.conv1", "layer3.0.downsample"])
def test_where_several_tensors_cross_the_nearest_cuts_are_named(resnet, cut):
    with pytest.raises(UsageError, match=r"2 tensors cross there.*nearest valid cuts are layer2 and layer3\.0"):
        resolve_point(cut, resnet[1].points, resnet[1].others)


@pytest.mark.parametrize("cut", ["layer9", "120%", "-1"])
def test_an_unknown_cut_is_refused(resnet, cut):
    with pytest.raises(UsageError, match=r"expected a share"):
        resolve_point(cut, resnet[1].points, resnet[1].others)


def test_digest_covers_weights_and_statistics_of_the_trunk_alone():
    loaded = load("resnet18")

    def digest():
        return split_images(loaded, cutter_of(loaded), ["layer2"], dtype="float16").recipe.cuts["layer2"]

    before = digest()
    with torch.no_grad():
        loaded.model.layer3[0].conv1.weight.add_(1)
        loaded.model.layer4[0].bn1.running_mean.add_(1)
        loaded.model.layer1[0].bn1.num_batches_tracked.add_(1)
    assert digest() == before
    with torch.no_grad():
        loaded.model.layer2[0].bn1.running_mean.add_(1)
    assert digest() != before


def test_training_the_head_moves_the_model_and_leaves_the_trunk_alone():
    loaded = load("resnet18", 32)
    split = split_images(loaded, cutter_of(loaded), ["layer3"], dtype="float32")
    before = copy.deepcopy(loaded.model.state_dict())
    split.freeze("layer3")
    loaded.model.train()
    batch = pixels(4, 32)
    head = split.head_from("layer3")
    weights = [one for _, one in split.head_parameters("layer3")]
    optimizer = torch.optim.SGD(weights, lr=0.1)
    rows = split.trunk(batch)["layer3"]
    head(rows, torch.ones(4)).square().sum().backward()
    split.full(batch).square().sum().backward()
    optimizer.step()
    after = loaded.model.state_dict()
    moved = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert moved
    assert {name.split(".")[0] for name in moved} == {"layer4", "fc"}
    assert "layer4.0.bn1.running_mean" in moved
    fresh = torchvision.models.resnet18(num_classes=3)
    fresh.load_state_dict(after, strict=True)


def test_batchnorm_of_the_head_stands_still_when_asked_to():
    loaded = load("resnet18", 32)
    split = split_images(loaded, cutter_of(loaded), ["layer3"], dtype="float32", head_batchnorm="eval")
    before = loaded.model.layer4[0].bn1.running_mean.clone()
    split.freeze("layer3")
    loaded.model.train()
    split.head_from("layer3")(split.trunk(pixels(4, 32))["layer3"], torch.ones(4))
    assert torch.equal(loaded.model.layer4[0].bn1.running_mean, before)
    with pytest.raises(UsageError, match="head-batchnorm"):
        split_images(loaded, cutter_of(loaded), ["layer3"], dtype="float32", head_batchnorm="off")


def test_stochastic_depth_follows_the_mode():
    model = SMALL["convnext"]().eval()
    stir(model)
    for module in model.modules():
        if isinstance(module, torchvision.ops.StochasticDepth):
            module.p = 0.5
    cutter = GraphCutter(model, (3, 32, 32))
    rows = torch.rand(8, *cutter.points[3].shape)
    head = cutter.head(cutter.points[3].name)
    assert torch.equal(head(rows), head(rows))
    model.train()
    assert not torch.equal(head(rows), head(rows))


def test_the_head_leaves_the_callers_rows_as_they_are():
    loaded = load("squeezenet1_1", 32)
    split = split_images(loaded, cutter_of(loaded), ["features.0", "features.1"], dtype="float32")
    rows = split.trunk(pixels(2, 32))
    before = rows["features.0"].clone()
    assert (before < 0).any(), "what the next operation, in place, would have changed"
    split.head_from("features.0")(rows["features.0"], torch.ones(2))
    assert torch.equal(rows["features.0"], before)


def test_a_random_trunk_is_always_the_same_and_the_seed_is_of_the_task_layer():
    one, other = (load_torchvision("squeezenet1_1", labels=labels, weights="none") for labels in (None, "ab"))
    assert one.weights == "random, seed 0"
    other_seed = load_torchvision("squeezenet1_1", labels="ab", weights="none", seed=1)
    first = [loaded.model.features[0].weight for loaded in (one, other, other_seed)]
    assert torch.equal(first[0], first[1])
    assert torch.equal(first[0], first[2])
    task = [loaded.model.classifier[1].weight for loaded in (other, other_seed)]
    assert not torch.equal(task[0], task[1])


@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
def test_weights_of_a_file_are_loaded(tmp_path, ending):
    from safetensors.torch import save_file

    given = load("resnet18", labels=("a", "b", "c", "d")).model.state_dict()
    path = str(tmp_path / f"weights{ending}")
    save_file(given, path) if ending == ".safetensors" else torch.save({"state_dict": given}, path)
    same = load_torchvision("resnet18", labels=None, weights=path)
    assert all(torch.equal(tensor, given[name]) for name, tensor in same.model.state_dict().items())
    assert len(same.labels) == 4
    other = load_torchvision("resnet18", labels=["x", "y"], weights=path)
    assert other.missing == {"fc.weight", "fc.bias"}
    assert torch.equal(other.model.layer4[1].conv2.weight, given["layer4.1.conv2.weight"])


class Harmful:
    def __reduce__(self):
        return (print, ("code from a weights file",))


def test_a_file_with_code_in_it_is_refused(tmp_path, capsys):
    torch.save({"fc.weight": Harmful()}, tmp_path / "bad.pth")
    with pytest.raises(ModelError, match=r"cannot be read"):
        load_torchvision("resnet18", labels=None, weights=str(tmp_path / "bad.pth"))
    assert capsys.readouterr().out == ""


def test_weights_of_another_architecture_are_refused(tmp_path):
    torch.save(load("resnet34").model.state_dict(), tmp_path / "other.pth")
    with pytest.raises(ModelError, match="do not fit"):
        load_torchvision("resnet18", labels=None, weights=str(tmp_path / "other.pth"))
    with pytest.raises(UsageError, match="IMAGENET1K_V1"):
        load_torchvision("resnet18", labels=None, weights="IMAGENET")
    with pytest.raises(ModelError, match="no architecture of torchvision"):
        load_torchvision("resnet9", labels=None, weights="none")


def test_weights_that_cannot_be_downloaded_say_what_else_there_is(monkeypatch):
    def offline(*args, **options):
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(ModelError, match=r"cannot be downloaded \(no route to host\).*--weights none"):
        load_torchvision("resnet18", labels=None)


def test_an_image_size_that_the_model_does_not_take_is_refused():
    loaded = load("alexnet", 64)
    with pytest.raises(ModelError, match="does not take images of 16 x 16"):
        GraphCutter(loaded.model, (3, 16, 16))


def test_a_model_whose_course_depends_on_values_is_refused():
    class Branching(torch.nn.Module):
        def forward(self, images):
            return images if images.sum() > 0 else -images

    with pytest.raises(ModelError, match="does not trace"):
        GraphCutter(Branching(), (3, 8, 8))


@pytest.mark.parametrize("name", ["resnet50", "vit_b_16", "convnext_tiny", "efficientnet_b4"])
def test_the_transform_is_that_of_the_weights(name):
    from PIL import Image

    from recycle_cli.models.vision.transforms import array_of

    noise = torch.randint(0, 256, (300, 411, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    image = Image.fromarray(noise.numpy())
    transform = preset_of(name)
    ours = transform.normalised(torch.from_numpy(array_of(transform.fitted(image, "it")))[None])[0]
    theirs = torchvision.models.get_model_weights(name).DEFAULT.transforms()(image)
    assert ours.shape == theirs.shape
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_a_changed_transform_changes_the_digest():
    transform = preset_of("resnet18")
    assert changed(transform, resize=(32,)).size == (32, 32)
    assert changed(transform, resize=(40, 30)).size == (40, 30)
    assert changed(transform, crop=(64,)).resize == transform.resize
    assert changed(transform, mean=(0, 0, 0)).digest != transform.digest
    assert changed(transform).digest == transform.digest
    with pytest.raises(UsageError, match="three numbers"):
        changed(transform, std=(1.0,))
