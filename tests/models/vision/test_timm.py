"""Models of timm, as timm writes them for the hub: opened, cut, and through the three verbs."""

import json

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from recycle_cli.errors import ModelError, UsageError
from recycle_cli.models import NamedModel, TaskLayer
from recycle_cli.models.hub import Source
from recycle_cli.models.vision.processors import ProcessorTransform, processor_transform
from recycle_cli.models.vision.transforms import ImageTransform
from recycle_cli.settings import (
    CorpusSettings,
    ImageSettings,
    Job,
    ModelSettings,
    PrecomputeSettings,
    PredictSettings,
    TrainingSettings,
)
from recycle_cli.verbs.finetune import finetune
from recycle_cli.verbs.precompute import precompute
from recycle_cli.verbs.predict import predict

timm = pytest.importorskip("timm")
hub = pytest.importorskip("timm.models._hub")

SMALL = {
    "resnet18": {"layers": [1, 2, 1, 1], "channels": [8, 12, 16, 24]},
    "convnext_atto": {"depths": [1, 1, 2, 1], "dims": [8, 12, 16, 24]},
    "vit_tiny_patch16_224": {"depth": 4, "embed_dim": 16, "num_heads": 2},
    "regnetx_002": {},
}
"""Architectures with arguments that make them small; the last is as small as it is, and has no list of blocks."""

SIDE = 64


def made(folder, name, classes=3, **changes):
    """A model of timm with random weights, saved as `timm.models.push_to_hf_hub` writes it."""
    folder.mkdir(parents=True, exist_ok=True)
    arguments = SMALL[name] | ({"img_size": SIDE} if name.startswith("vit") else {})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = timm.create_model(name, pretrained=False, num_classes=classes, **arguments).eval()
    model.pretrained_cfg = {**model.pretrained_cfg, "input_size": (3, SIDE, SIDE), **changes}
    hub.save_for_hf(model, folder, model_args=arguments, safe_serialization=True)
    return model


def noise(seed, width=90, height=70):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def corpus_of(folder, count=4):
    for number, label in enumerate(["x", "y", "z"] * count):
        (folder / label).mkdir(parents=True, exist_ok=True)
        noise(number).save(folder / label / f"{number}.png")
    return CorpusSettings((str(folder),))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SMALL)
def test_a_model_of_timm_goes_through_the_three_verbs(name, tmp_path):
    plain = made(tmp_path / "model", name)
    corpus, model = corpus_of(tmp_path / "images"), ModelSettings(str(tmp_path / "model"), device="cpu")
    store, run = str(tmp_path / "store"), tmp_path / "run"
    assert NamedModel(model).modality == "image"
    filled = precompute(corpus, store, model, PrecomputeSettings(cuts=("50%",), dtype="float32"))
    assert filled.new_samples == 12
    job = Job(corpus, str(run), store, task="image-classification", tensorboard=False)
    finetune(job, ModelSettings(device="cpu"), TrainingSettings(epochs=1, batch_size=6, learning_rate=1e-2))
    answers = tmp_path / "out.jsonl"
    scored = predict(corpus, str(run), store, str(answers), ModelSettings(device="cpu"), PredictSettings())
    assert scored.hits == 12

    again = transformers.AutoModelForImageClassification.from_pretrained(run).eval()
    assert again.config.id2label == {0: "x", 1: "y", 2: "z"}
    processor = transformers.AutoImageProcessor.from_pretrained(run)
    found = [json.loads(line) for line in answers.read_text().splitlines()]
    for one in found:
        with torch.no_grad():
            logits = again(**processor(Image.open(tmp_path / "images" / one["id"]), return_tensors="pt")).logits[0]
        scores = [one[f"score_{label}"] for label in "xyz"]
        torch.testing.assert_close(logits.softmax(0), torch.tensor(scores), atol=1e-4, rtol=1e-3)
    trained = dict(again.timm_model.named_parameters())
    moved = [key for key, one in plain.named_parameters() if not torch.equal(one, trained[key])]
    assert moved
    assert len(moved) < len(trained)


def test_the_whole_model_is_timms_own(tmp_path):
    plain = made(tmp_path, "resnet18")
    network = NamedModel(ModelSettings(str(tmp_path), device="cpu")).open()
    pixels = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(network.loaded.model(pixel_values=pixels).logits, plain(pixels))


@pytest.mark.parametrize("wrapped", [False, True])
def test_other_classes_make_a_new_layer_and_the_same_recipe(wrapped, tmp_path):
    """In the files of timm itself, and in those that transformers writes of it."""
    made(tmp_path, "resnet18")
    if wrapped:
        NamedModel(ModelSettings(str(tmp_path), device="cpu")).open().loaded.save(tmp_path, None)
        assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "timm_wrapper"
    model = NamedModel(ModelSettings(str(tmp_path), device="cpu"))
    own, other = (model.open(layer) for layer in (TaskLayer(), TaskLayer(labels=("a", "b"))))
    assert other.loaded.labels == ("a", "b")
    assert {"timm_model.fc.weight", "timm_model.fc.bias"} <= other.loaded.missing
    assert own.split(("50%",), "float32").recipe == other.split(("50%",), "float32").recipe


@pytest.mark.parametrize(
    ("changes", "read"),
    [
        ({}, True),
        ({"crop_pct": 0.9, "interpolation": "bilinear", "mean": (0.5, 0.4, 0.3)}, True),
        ({"crop_pct": 1.0, "crop_mode": "squash"}, True),
        ({"crop_pct": 0.9, "crop_mode": "border"}, False),
    ],
)
def test_pixels_are_those_of_timms_own_transform(changes, read, tmp_path):
    made(tmp_path, "resnet18", **changes)
    transform = processor_transform(Source(str(tmp_path)))
    assert isinstance(transform, ImageTransform if read else ProcessorTransform)
    config = timm.data.resolve_data_config(json.loads((tmp_path / "config.json").read_text())["pretrained_cfg"])
    theirs = timm.data.create_transform(**config, is_training=False)
    for image in (noise(1), noise(2, 71, 133), noise(3, 33, 31), noise(4, 240, 200)):
        ours = transform.normalised(torch.from_numpy(transform.array(image, "it"))[None])[0]
        torch.testing.assert_close(ours, theirs(image), atol=1e-5, rtol=0)


def test_a_transform_of_the_users_is_kept_in_the_run(tmp_path):
    made(tmp_path / "model", "resnet18")
    own = ImageSettings(resize=(72,), crop=(64,), mean=(0.1, 0.2, 0.3))
    network = NamedModel(ModelSettings(str(tmp_path / "model"), device="cpu", images=own)).open()
    (tmp_path / "run").mkdir()
    network.loaded.save(tmp_path / "run", None)
    assert processor_transform(Source(str(tmp_path / "run"))) == network.loaded.transform
    given = ImageSettings(resize=(64, 80), crop=(64, 64))
    with pytest.raises(UsageError, match="the config of a timm model does not hold such a transform"):
        NamedModel(ModelSettings(str(tmp_path / "model"), device="cpu", images=given)).open()


def test_without_timm_the_package_is_named(tmp_path, monkeypatch):
    made(tmp_path, "resnet18")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"is one of timm; install it with `pip install 'recycle-cli\[timm\]'`"):
        NamedModel(ModelSettings(str(tmp_path))).open()
