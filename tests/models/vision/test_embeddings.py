"""An embedding layer in an image classifier's place: the same cuts and stores, and a plain checkpoint at the end."""

import pytest
import torch
import torchvision
import transformers
from safetensors.torch import load_file
from torch import nn

from recycle_cli.errors import ModelError
from recycle_cli.models import NamedModel, TaskLayer
from recycle_cli.models.embedding import EmbeddingLayer, put_embedding
from recycle_cli.settings import EmbeddingSettings, ImageSettings, ModelSettings
from tests.images import noise
from tests.models.vision.test_transformers import saved

SKIP = TaskLayer("embedding", head=EmbeddingSettings())
LINEAR = TaskLayer("embedding", head=EmbeddingSettings("linear", 6, 0.0))
TORCHVISION = ModelSettings("resnet18", device="cpu", images=ImageSettings("none", resize=(32,), crop=(32,)))
ENDS = {
    "alexnet": "classifier.6",
    "convnext_tiny": "classifier.2",
    "densenet121": "classifier",
    "efficientnet_b0": "classifier.1",
    "googlenet": "fc",
    "inception_v3": "fc",
    "maxvit_t": "classifier.5",
    "mnasnet0_5": "classifier.1",
    "mobilenet_v2": "classifier.1",
    "mobilenet_v3_small": "classifier.3",
    "shufflenet_v2_x0_5": "fc",
    "squeezenet1_1": "",
    "swin_t": "head",
    "vgg11": "classifier.6",
    "vit_b_16": "heads.head",
}


@pytest.fixture(params=["torchvision", "swin", "resnet"])
def model(request, tmp_path):
    return TORCHVISION if request.param == "torchvision" else saved(tmp_path, request.param)


@pytest.mark.parametrize("layer", [SKIP, LINEAR], ids=["skip", "linear"])
def test_cuts_and_stores_are_those_of_the_classifier(model, layer, tmp_path):
    classifier, embedder = NamedModel(model).open(), NamedModel(model).open(layer)
    cuts = ("0", "50%", "100%")
    one, other = classifier.split(cuts, "float32"), embedder.split(cuts, "float32")
    assert one.cuts == other.cuts
    assert one.recipe.difference(other.recipe) is None
    batch = other.collate(other.prepare(noise(3)))
    with torch.no_grad():
        whole, rows = other.full(batch), other.trunk(batch)
        for cut in other.cuts[1:]:
            assert torch.allclose(other.head_from(cut)(rows[cut], torch.ones(3)), whole, atol=1e-5)
    assert whole.shape == (3, len(embedder.loaded.labels))
    new = {name for name, _ in other.head_parameters(other.cuts[-1])}
    assert embedder.loaded.missing <= new
    assert any(name.endswith(".gate") for name in new) == (layer is SKIP)


@pytest.mark.parametrize("layer", [SKIP, LINEAR], ids=["skip", "linear"])
def test_the_checkpoint_is_the_classs_own_and_gives_the_same_vectors(model, layer, tmp_path):
    network = NamedModel(model).open(layer)
    for module in network.loaded.model.modules():
        if isinstance(module, EmbeddingLayer) and layer is SKIP:
            nn.init.constant_(module.gate, 0.5)
    halves = network.split(("0",), "float32")
    batch = halves.collate(halves.prepare(noise(2)))
    with torch.no_grad():
        before = halves.full(batch)
    size = before.shape[1]
    run = tmp_path / "run"
    run.mkdir()
    network.loaded.save(run, None)
    if model is TORCHVISION:
        plain = torchvision.models.resnet18(num_classes=size)
        plain.load_state_dict(load_file(run / "model.safetensors"), strict=True)
    else:
        plain = transformers.AutoModelForImageClassification.from_pretrained(run)
        assert plain.config.num_labels == size
    again = NamedModel(ModelSettings(str(run), device="cpu")).open(layer.kept)
    assert len(again.loaded.labels) == size
    with torch.no_grad():
        assert torch.allclose(again.split(("0",), "float32").full(batch), before, atol=1e-4)


def test_a_run_of_one_task_is_the_start_of_another(tmp_path):
    """Its layer gives way to a new one; all before it stays."""
    first = NamedModel(TORCHVISION).open(LINEAR)
    (tmp_path / "run").mkdir()
    first.loaded.save(tmp_path / "run", None)
    run = ModelSettings(str(tmp_path / "run"), device="cpu")
    classes = NamedModel(run).open(TaskLayer(labels=("a", "b")))
    assert classes.loaded.model.fc.out_features == 2
    other = NamedModel(run).open(SKIP)
    assert other.loaded.model.fc.linear.out_features == 512
    trunk = [network.split(("layer4",), "float32").recipe for network in (first, classes, other)]
    assert trunk[0].difference(trunk[1]) is None
    assert trunk[0].difference(trunk[2]) is None


@pytest.mark.parametrize("name", ENDS)
def test_every_torchvision_model_with_a_linear_end_takes_one(name):
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    with torch.device("meta"):
        model = torchvision.models.get_model(name, num_classes=7, **options)
    if not ENDS[name]:
        with pytest.raises(ModelError, match=r"classifier\.1.*no linear layer"):
            put_embedding(model, EmbeddingSettings(), classes=7, seed=0)
        return
    place, _ = put_embedding(model, EmbeddingSettings(), classes=7, seed=0)
    assert place == ENDS[name]
