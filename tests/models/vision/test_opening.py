"""Whatever a model's files or code raise is one line that names the model."""

import json

import pytest
import torch
import transformers

from recycle_cli.errors import ModelError
from recycle_cli.models import NamedModel, TaskLayer
from recycle_cli.settings import ModelSettings
from tests.images import noise
from tests.models.vision.test_transformers import PROCESSOR, SIDE, saved, tiny

PYRAMID = {"hidden_sizes": [4, 4, 8, 8], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 2, 2]}


def changed(folder, **fields):
    config = json.loads((folder / "config.json").read_text()) | fields
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("family", ["resnet", "vit", "convnext"])
def test_a_config_without_return_dict_opens(family, tmp_path):
    model = saved(tmp_path, family)
    changed(tmp_path, return_dict=False, output_attentions=True, output_hidden_states=True)
    network = NamedModel(model).open()
    (tmp_path / "run").mkdir()
    network.loaded.save(tmp_path / "run", None)
    halves = network.split(["50%"], "float32")
    batch = halves.collate(halves.prepare(noise(2)))
    images = network.loaded.transform.normalised(batch["pixel_values"])
    with torch.inference_mode():
        assert torch.equal(halves.full(batch), tiny(family)(pixel_values=images).logits)


def pvt(folder, **fields):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = transformers.PvtConfig(**PYRAMID, image_size=SIDE, **fields)
        transformers.PvtForImageClassification(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return NamedModel(ModelSettings(str(folder), device="cpu"))


def test_pvt_has_as_many_names_as_outputs(tmp_path):
    named = pvt(tmp_path, id2label=dict(enumerate("abcde")))
    labels = named.open().loaded.labels
    assert labels[:6] == ("a", "b", "c", "d", "e", "LABEL_5")
    loaded = named.open(TaskLayer(labels=("x", "y", "z"))).loaded
    assert loaded.labels == ("x", "y", "z")
    assert loaded.model.config.num_labels == 3


@pytest.mark.parametrize("broken", [{"depths": "many"}, {"hidden_sizes": {}}, {"num_channels": [3]}, {"layer_type": 7}])
def test_what_files_raise_is_one_line_that_names_the_model(broken, tmp_path):
    model = saved(tmp_path, "resnet")
    changed(tmp_path, **broken)
    with pytest.raises(ModelError, match="model '") as caught:
        NamedModel(model).open()
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("processor", [{"image_processor_type": "ImageGPTImageProcessor"}, {"size": "large"}, []])
def test_a_processor_that_cannot_be_used_is_one_line(processor, tmp_path):
    model = saved(tmp_path, "vit")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    with pytest.raises(ModelError, match="processor") as caught:
        NamedModel(model).open()
    assert "\n" not in str(caught.value)
