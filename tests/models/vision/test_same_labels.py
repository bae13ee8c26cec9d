"""A classifier is kept by the names of its classes: permuted for another order, new for other names."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file

from recycle_cli.models import NamedModel, TaskLayer
from recycle_cli.models.vision.sources import load_torchvision
from recycle_cli.models.vision.transforms import ImageTransform
from tests.models.vision.test_transformers import SIDE, saved

KNOWN, OTHER = ("cat", "dog", "owl"), ("car", "bus", "tram")


def named(folder, family):
    model = saved(folder, family)
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = dict(enumerate(KNOWN))
    config["label2id"] = {name: number for number, name in enumerate(KNOWN)}
    (folder / "config.json").write_text(json.dumps(config))
    return NamedModel(model)


def logits_of(loaded):
    images = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        output = loaded.model(images)
    return output if isinstance(output, torch.Tensor) else output.logits


@pytest.mark.parametrize("family", ["vit", "resnet", "swin", "deit"])
def test_names_in_another_order_permute_the_rows(family, tmp_path, capsys):
    model = named(tmp_path, family)
    plain = transformers.AutoModelForImageClassification.from_pretrained(tmp_path).eval()
    theirs = plain(pixel_values=torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))).logits
    turned = model.open(TaskLayer(labels=("owl", "cat", "dog"))).loaded
    assert turned.labels == ("owl", "cat", "dog")
    assert turned.missing == frozenset()
    torch.testing.assert_close(logits_of(turned), theirs[:, [2, 0, 1]], rtol=1e-5, atol=1e-6)
    same = logits_of(model.open(TaskLayer(labels=KNOWN)).loaded)
    torch.testing.assert_close(same, theirs, rtol=1e-5, atol=1e-6)
    assert "made anew" not in capsys.readouterr().err


@pytest.mark.parametrize("family", ["vit", "resnet", "swin"])
def test_other_names_get_a_new_layer_from_the_seed(family, tmp_path, capsys):
    model = named(tmp_path, family)
    kept = model.open().loaded
    capsys.readouterr()
    first, again, other = (model.open(TaskLayer(labels=OTHER), seed=seed).loaded for seed in (1, 1, 2))
    lines = [line for line in capsys.readouterr().err.splitlines() if "made anew" in line]
    assert len(lines) == 3
    assert "its classes (cat, dog, owl) are not those of the data (car, bus, tram)" in lines[0]
    assert first.missing
    assert all(key.startswith("classifier") for key in first.missing)
    for key in first.missing:
        assert torch.equal(first.model.state_dict()[key], again.model.state_dict()[key])
    assert not torch.equal(logits_of(first), logits_of(kept))
    assert not torch.equal(logits_of(first), logits_of(other))
    trunk = [key for key in kept.model.state_dict() if key not in first.missing]
    assert all(torch.equal(kept.model.state_dict()[key], first.model.state_dict()[key]) for key in trunk)


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "mobilenet_v3_small"])
def test_torchvisions_classifiers_follow_their_names(name, tmp_path, capsys):
    transform = ImageTransform((SIDE, SIDE), (), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    run = load_torchvision(name, labels=KNOWN, weights="none", transform=transform)
    run.save(tmp_path, None)
    tensors = load_file(tmp_path / "model.safetensors")
    turned = load_torchvision(str(tmp_path), labels=("owl", "cat", "dog"))
    torch.testing.assert_close(logits_of(turned), logits_of(run)[:, [2, 0, 1]], rtol=1e-5, atol=1e-6)
    assert turned.missing == frozenset()
    capsys.readouterr()
    other = load_torchvision(str(tmp_path), labels=OTHER, seed=3)
    assert "made anew" in capsys.readouterr().err
    assert other.missing
    changed = {key for key, one in other.model.state_dict().items() if not torch.equal(one, tensors[key])}
    # A new bias may be zero, as the old one was.
    assert changed <= other.missing
    assert {key for key in other.missing if key.endswith("weight")} <= changed
