"""Image models of transformers, cut at their modules: every cut is proved, and a RUN is an ordinary checkpoint."""

import io
import json

import pytest
import torch
import transformers
from PIL import Image

from recycle_cli.errors import ModelError, UsageError
from recycle_cli.models import NamedModel, TaskLayer
from recycle_cli.models.vision.modules import ModuleCutter
from recycle_cli.models.vision.transforms import ImageTransform, of_processor
from recycle_cli.settings import ImageSettings, ModelSettings
from tests.images import noise

SIDE = 32
TOKENS = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "image_size": SIDE,
    "patch_size": 8,
}
WINDOWS = {"embed_dim": 8, "depths": [1, 2], "num_heads": [2, 2], "image_size": SIDE, "patch_size": 4, "window_size": 4}
STAGES = {"depths": [1, 2, 1], "hidden_sizes": [8, 12, 16], "num_stages": 3, "image_size": SIDE}
FAMILIES = {
    "vit": TOKENS,
    "deit": TOKENS,
    "beit": TOKENS,
    "dinov2": {name: value for name, value in TOKENS.items() if name != "intermediate_size"},
    "swin": WINDOWS,
    "convnext": STAGES,
    "resnet": {"depths": [1, 2, 1], "hidden_sizes": [8, 12, 16], "embedding_size": 8},
}
PROCESSOR = {
    "image_processor_type": "BitImageProcessor",
    "do_resize": True,
    "size": {"shortest_edge": 36},
    "do_center_crop": True,
    "crop_size": {"height": SIDE, "width": SIDE},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.3, 0.4],
    "resample": 3,
    "do_convert_rgb": True,
}


def tiny(family, **fields):
    config = transformers.AutoConfig.for_model(family, **{**FAMILIES[family], "num_labels": 3, **fields})
    config.architectures = [transformers.AutoModelForImageClassification._model_mapping._model_mapping[family]]
    if family == "deit":
        config.architectures = ["DeiTForImageClassification"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.AutoModelForImageClassification.from_config(config).eval()
        with torch.no_grad():
            for tensor in model.parameters():
                tensor.add_(torch.randn_like(tensor) * 0.1)
    return model


def saved(folder, family="vit"):
    tiny(family).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return ModelSettings(str(folder), device="cpu")


@pytest.mark.parametrize("family", FAMILIES)
def test_head_after_trunk_is_the_whole_model_at_every_cut(family):
    model = tiny(family)
    cutter = ModuleCutter(model, (3, SIDE, SIDE))
    assert len(cutter.points) >= 3
    shares = [point.flops for point in cutter.points]
    assert shares == sorted(shares)
    images = torch.rand(5, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(7))
    with torch.inference_mode():
        whole = model(pixel_values=images).logits
        rows = cutter.trunk([point.name for point in cutter.points])(images)
        for point in cutter.points:
            assert rows[point.name].shape == (5, *point.shape)
            halves = cutter.head(point.name)(rows[point.name])
            assert float((halves - whole).abs().max() / whole.abs().max()) <= 1e-4


@pytest.mark.parametrize("family", ["vit", "swin", "resnet"])
def test_training_the_head_moves_the_head_alone(family, tmp_path):
    network = NamedModel(saved(tmp_path, family)).open(TaskLayer(labels=("x", "y")))
    halves = network.split(["50%"], "float32")
    (cut,) = halves.cuts
    before = {name: tensor.clone() for name, tensor in halves.model.state_dict().items()}
    halves.freeze(cut)
    halves.model.train()
    rows = halves.trunk(halves.collate(halves.prepare(noise(4))))[cut]
    optimizer = torch.optim.SGD([one for _, one in halves.head_parameters(cut)], lr=0.1)
    halves.head_from(cut)(rows, torch.ones(4)).square().sum().backward()
    optimizer.step()
    moved = {name for name, tensor in halves.model.state_dict().items() if not torch.equal(tensor, before[name])}
    trunk = {name for name, _ in halves.trunk_parameters(cut)}
    assert moved
    assert not moved & trunk
    assert {name for name, _ in halves.head_buffers(cut)} <= moved
    assert all(not one.requires_grad for _, one in halves.trunk_parameters(cut))
    assert "classifier" in " ".join(moved)


def test_a_module_that_is_no_cut_names_the_nearest(tmp_path):
    network = NamedModel(saved(tmp_path)).open()
    with pytest.raises(UsageError, match=r"nearest valid cuts are vit\.layers\.0 and vit\.layers\.1"):
        network.split(["vit.layers.1.attention"], "float32")


def test_a_model_in_which_more_than_rows_reaches_the_rest_is_refused():
    class Leaking(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = torch.nn.ModuleList(torch.nn.Conv2d(3, 3, 1) for _ in range(2))

        def forward(self, pixel_values):
            rows = pixel_values
            for block in self.blocks:
                rows = block(rows)
            logits = (rows + pixel_values).mean((2, 3))
            return transformers.modeling_outputs.ImageClassifierOutput(logits=logits)

    with pytest.raises(ModelError, match="no block's output is all that the rest needs"):
        ModuleCutter(Leaking(), (3, 8, 8))


def test_a_model_that_draws_random_numbers_in_eval_is_refused_in_these_words():
    model, generator = tiny("vit").eval(), torch.Generator().manual_seed(0)
    model.vit.embeddings.register_forward_hook(
        lambda module, args, rows: rows + 0.1 * torch.rand(rows.shape, generator=generator)
    )
    with pytest.raises(ModelError, match="in eval, too, it draws random numbers"):
        ModuleCutter(model, (3, SIDE, SIDE))


def test_images_of_another_size_are_refused(tmp_path):
    model = saved(tmp_path)
    other = ModelSettings(model.name, images=ImageSettings(resize=(48,), crop=(48,)))
    with pytest.raises(ModelError, match="does not take images of 48 x 48 pixels"):
        NamedModel(other).open()
    with pytest.raises(UsageError, match="whole checkpoint"):
        NamedModel(ModelSettings(model.name, images=ImageSettings(weights="none"))).open()


def test_a_saved_model_loads_with_transformers_and_gives_the_same_logits(tmp_path):
    (tmp_path / "model").mkdir()
    network = NamedModel(saved(tmp_path / "model")).open(TaskLayer(labels=("x", "y")))
    (tmp_path / "run").mkdir()
    network.loaded.save(tmp_path / "run", None)
    again = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "run").eval()
    assert again.config.id2label == {0: "x", 1: "y"}
    halves = network.split(["50%"], "float32")
    batch = halves.collate(halves.prepare(noise(2)))
    images = network.loaded.transform.normalised(batch["pixel_values"])
    with torch.inference_mode():
        assert torch.equal(again(pixel_values=images).logits, halves.full(batch))
    assert NamedModel(ModelSettings(str(tmp_path / "run"))).modality == "image"
    assert NamedModel(ModelSettings(str(tmp_path / "run"))).open().loaded.labels == ("x", "y")


def test_the_stores_transform_is_found_again(tmp_path):
    model = saved(tmp_path)
    network = NamedModel(ModelSettings(model.name, images=ImageSettings(mean=(0.0, 0.0, 0.0)))).open()
    recipe = network.split(["50%"], "float32").recipe
    provenance = {"model": model.name, **network.provenance}
    found = NamedModel(ModelSettings()).found_again(provenance, recipe, named=False)
    assert found.open(TaskLayer(labels=("x", "y"))).split(["50%"], "float32").recipe == recipe
    network.loaded.save(tmp_path, None)
    assert NamedModel(ModelSettings(model.name)).open().loaded.transform == network.loaded.transform


class GoingBy(transformers.ViTModel):
    """A ViT that goes by fields which mean nothing to others: their names say labels or tasks."""

    def forward(self, pixel_values, **others):
        scaled = pixel_values * (getattr(self.config, "classifier_bias", None) or 1.0)
        shift = (getattr(self.config, "task_specific_params", None) or {}).get("shift", 0.0)
        return super().forward(scaled + shift, **others)


@pytest.mark.parametrize(
    ("fields", "counted"),
    [
        ({"classifier_bias": 2.0, "prefix": "a"}, {"classifier_bias": 2.0}),
        ({"task_specific_params": {"shift": 1.0}, "top_k": 3}, {"task_specific_params": {"shift": 1.0}}),
        ({"prefix": "a", "num_beams": 3, "hidden_dropout_prob": 0.3}, {}),
    ],
)
def test_a_field_that_the_model_goes_by_counts_whatever_its_name(fields, counted, tmp_path):
    settings = saved(tmp_path)
    plain = NamedModel(settings).open().split(["100%"], "float32").recipe
    config = json.loads((tmp_path / "config.json").read_text()) | fields
    (tmp_path / "config.json").write_text(json.dumps(config))
    network = NamedModel(settings).open()
    assert network.split(["100%"], "float32").recipe == plain
    network.loaded.model.vit.__class__ = GoingBy
    assert network.split(["100%"], "float32").recipe.architecture == {**plain.architecture, **counted}


def test_layers_are_listed(tmp_path):
    rows, length = NamedModel(saved(tmp_path)).layers("int8")
    assert length is None
    assert [row.cut for row in rows] == ["vit.embeddings", "vit.layers.0", "vit.layers.1", "vit.layers.2"]
    assert rows[0].row_shape == (17, 16)
    assert rows[0].bytes_per_sample == 17 * 16 + 4


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"do_center_crop": False, "size": {"height": 32, "width": 32}}, ((32, 32), ())),
        ({}, ((36,), (32, 32))),
        ({"crop_pct": 0.875, "do_center_crop": False, "size": {"shortest_edge": 224}}, ((256,), (224, 224))),
        ({"crop_pct": 0.875, "do_center_crop": False, "size": {"shortest_edge": 384}}, ((384, 384), ())),
    ],
)
def test_processors_are_read(change, expected):
    found = of_processor(PROCESSOR | change, "it")
    assert (found.resize, found.crop) == expected
    assert found == ImageTransform(*expected, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "bicubic")


def test_the_transform_is_the_processors(tmp_path):
    model = saved(tmp_path)
    network = NamedModel(model).open()
    halves = network.split(["50%"], "float32")
    (sample,) = noise(1)
    ours = network.loaded.transform.normalised(halves.collate(halves.prepare([sample]))["pixel_values"])
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path, use_fast=False)
    content = sample.fields["image"]
    assert isinstance(content, bytes)
    theirs = processor(Image.open(io.BytesIO(content)), return_tensors="pt")["pixel_values"]
    assert ours.shape == theirs.shape
    assert float((ours - theirs).abs().mean()) < 0.02


@pytest.mark.parametrize("change", [{"do_pad": True}, {"rescale_factor": 1 / 127.5}, {"size": None}])
def test_a_processor_that_does_more_is_refused(change):
    with pytest.raises(ModelError, match="does more than resize"):
        of_processor(PROCESSOR | change, "it")
