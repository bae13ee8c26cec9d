"""A model of another kind than the task's is refused in one line that says what takes it."""

import pytest
import transformers

from recycle_cli.errors import ModelError
from recycle_cli.models import NamedModel, TaskLayer
from recycle_cli.settings import EmbeddingSettings, ModelSettings
from tests.conftest import tiny_config, tiny_tokenizer

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
CONVOLUTIONS = {"conv_dim": [16, 16], "conv_kernel": [3, 3], "conv_stride": [2, 2], "num_feat_extract_layers": 2}
SPEECH = {**SMALL, **CONVOLUTIONS, "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
FRAMES = {**SMALL, "image_size": 16, "patch_size": 8, "num_frames": 4}
GROUPED = {"num_key_value_heads": 2}

CLASSES = TaskLayer(labels=("a", "b", "c"))
SIMILAR = TaskLayer("embedding", head=EmbeddingSettings())


def saved(folder, model):
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return NamedModel(ModelSettings(str(folder), None, 16))


def refused(model, layer=CLASSES):
    with pytest.raises(ModelError) as caught:
        model.open(layer).split(("1",), "float32")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    return str(caught.value)


@pytest.mark.parametrize(
    ("model_type", "fields"),
    [
        ("granite", GROUPED),
        ("cohere", GROUPED),
        ("splinter", {}),
        ("bert-generation", {}),
        ("mamba", {"state_size": 4, "num_attention_heads": ...}),
    ],
)
def test_what_similarity_takes_is_said_and_true(model_type, fields, tmp_path):
    config = tiny_config(model_type, **fields)
    model = saved(tmp_path, transformers.AutoModel.from_config(config))
    message = refused(model)
    assert f"({model_type}) is of a kind for which transformers has no AutoModelForSequenceClassification" in message
    assert "`--task similarity` takes it" in message
    assert model.open(SIMILAR).split(("1",), "float32").cuts == ("1",)


@pytest.mark.parametrize("layer", [CLASSES, SIMILAR])
@pytest.mark.parametrize(
    ("model", "what"),
    [
        (lambda: transformers.Wav2Vec2Model(transformers.Wav2Vec2Config(**SPEECH)), r"audio \(input_values\)"),
        (lambda: transformers.HubertModel(transformers.HubertConfig(**SPEECH)), r"audio \(input_values\)"),
        (
            lambda: transformers.WhisperModel(
                transformers.WhisperConfig(
                    d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4, decoder_attention_heads=4
                )
            ),
            r"audio \(input_features\)",
        ),
        (lambda: transformers.VideoMAEModel(transformers.VideoMAEConfig(**FRAMES)), r"videos \(pixel_values\)"),
        (
            lambda: transformers.SiglipVisionModel(
                transformers.SiglipVisionConfig(**SMALL, image_size=16, patch_size=8)
            ),
            r"images \(pixel_values\)",
        ),
    ],
)
def test_other_media_are_named(model, what, layer, tmp_path):
    refused(saved(tmp_path, model()), layer)
    with pytest.raises(ModelError, match=rf"takes {what}, not texts; expected a model of texts"):
        saved(tmp_path, model()).open(layer)


def test_an_encoder_and_decoder_without_the_class_is_not_sent_to_similarity(tmp_path):
    sizes = {"encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48}
    model = saved(tmp_path, transformers.AutoModel.from_config(tiny_config("m2m_100", **sizes)))
    message = refused(model)
    assert "transformers has no AutoModelForSequenceClassification" in message
    assert "similarity" not in message
