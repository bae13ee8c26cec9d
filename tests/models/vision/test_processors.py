"""The pixels of a checkpoint are those of the image processor that transformers opens for it, or it is refused."""

import io
import json

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES

from recycle_cli.errors import ModelError, UsageError
from recycle_cli.keys import Sample
from recycle_cli.models import NamedModel
from recycle_cli.models.hub import Source
from recycle_cli.models.vision.processors import MEAN_LEVELS, MOST_LEVELS, ProcessorTransform, processor_transform
from recycle_cli.models.vision.transforms import ImageTransform
from recycle_cli.models.vision.views import augmentation, view_of
from recycle_cli.recipe import canonical_digest
from recycle_cli.settings import ImageSettings, ModelSettings

CLASSES = sorted(
    {
        name
        for kind in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES
        for backend, name in IMAGE_PROCESSOR_MAPPING_NAMES.get(kind, {}).items()
        if backend == "torchvision"
    }
)
"""Every image processor that a model for image classification has, by the name that its config gives."""

REFUSED = {
    "Gemma3ImageProcessor": "gives num_crops",
    "ImageGPTImageProcessor": "gives input_ids",
    "Siglip2ImageProcessor": "gives pixel_attention_mask",
    "TextNetImageProcessor": "does not give all images one size",
    "TimmWrapperImageProcessor": "cannot be used",
}
HALVES, IMAGENET = [0.5, 0.5, 0.5], ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
PLAIN = {"do_normalize": True, "do_resize": True, "image_mean": HALVES, "image_std": HALVES}
NETS = {"do_normalize": True, "do_resize": True, "image_mean": IMAGENET[0], "image_std": IMAGENET[1]}
HUB = {
    "vit": {**PLAIN, "size": 224},
    "swin": {**NETS, "feature_extractor_type": "ViTFeatureExtractor", "resample": 3, "size": 224},
    "beit": {
        **PLAIN,
        "crop_size": 224,
        "do_center_crop": False,
        "feature_extractor_type": "BeitFeatureExtractor",
        "resample": 2,
        "size": 224,
    },
    "segformer": {**NETS, "feature_extractor_type": "SegformerFeatureExtractor", "resample": 2, "size": 224},
    "deit": {
        **NETS,
        "crop_size": 224,
        "do_center_crop": True,
        "feature_extractor_type": "DeiTFeatureExtractor",
        "resample": 3,
        "size": 256,
    },
    "convnext": {**NETS, "feature_extractor_type": "ConvNextFeatureExtractor", "resample": 3, "size": 224},
    "resnet": {
        **NETS,
        "crop_pct": 0.875,
        "feature_extractor_type": "ConvNextFeatureExtractor",
        "resample": 3,
        "size": 224,
    },
    "clip": {"feature_extractor_type": "CLIPFeatureExtractor"},
    "mobilevit": {
        "crop_size": 256,
        "do_center_crop": True,
        "do_flip_channels": True,
        "do_resize": True,
        "feature_extractor_type": "MobileViTFeatureExtractor",
        "resample": 2,
        "size": 288,
    },
    "levit": {
        **NETS,
        "do_center_crop": True,
        "feature_extractor_type": "LevitFeatureExtractor",
        "resample": 3,
        "size": 224,
    },
    "mobilenet_v1": {
        **PLAIN,
        "crop_size": {"height": 192, "width": 192},
        "do_center_crop": True,
        "feature_extractor_type": "MobileNetV1FeatureExtractor",
        "size": {"shortest_edge": 224},
    },
    "efficientnet": {**NETS, "image_processor_type": "EfficientNetImageProcessor", "resample": 0, "size": 224},
    "unscaled": {**PLAIN, "image_processor_type": "ViTImageProcessor", "do_rescale": False, "size": 224},
    "lanczos": {**PLAIN, "image_processor_type": "ViTImageProcessor", "resample": 1, "size": 224},
    "capped": {
        **PLAIN,
        "image_processor_type": "BitImageProcessor",
        "size": {"shortest_edge": 224, "longest_edge": 400},
        "crop_size": 224,
        "do_center_crop": True,
    },
}
"""preprocessor_config.json as checkpoints on the hub have it, and a few that an author might write."""

AS_IT_IS = {"mobilevit", "levit", "efficientnet", "unscaled", "capped"}
TINY = {
    "vit": {
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 8,
        "patch_size": 32,
    },
    "beit": {
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 8,
        "patch_size": 32,
    },
    "swin": {"embed_dim": 4, "depths": [1, 1], "num_heads": [1, 1], "patch_size": 8},
    "segformer": {
        "hidden_sizes": [4, 4, 4, 4],
        "depths": [1, 1, 1, 1],
        "num_attention_heads": [1, 1, 1, 1],
        "decoder_hidden_size": 4,
    },
    "levit": {
        "hidden_sizes": [16, 16, 16],
        "num_attention_heads": [2, 2, 2],
        "depths": [1, 1, 1],
        "key_dim": [8, 8, 8],
    },
}


ARCHITECTURES = {
    "vit": "ViTForImageClassification",
    "beit": "BeitForImageClassification",
    "swin": "SwinForImageClassification",
    "segformer": "SegformerForImageClassification",
    "levit": "LevitForImageClassification",
}


def noise(width, height, seed=0, *, grey=False):
    # Without the ends of the range: a filter that overshoots them is cut off between Pillow's two passes.
    values = np.random.default_rng(seed).integers(48, 208, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values).convert("L" if grey else "RGB").convert("RGB")


IMAGES = [
    *(noise(width, 218, width) for width in range(330, 338)),
    noise(219, 331),
    noise(41, 27),
    noise(300, 207, grey=True),
    noise(641, 407),
]
"""Of several margins about a crop; tall, small, and grey as our decoding hands it on."""


def folder_of(path, config, model_type=None):
    (path / "preprocessor_config.json").write_text(json.dumps(config))
    if model_type in transformers.CONFIG_MAPPING:
        (path / "config.json").write_text(json.dumps({"model_type": model_type}))
    return Source(str(path))


def saved(path, family, **changes):
    fields = {"num_labels": 3, "image_size": 224, **TINY[family]}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = transformers.AutoConfig.for_model(family, **fields)
        config.architectures = [ARCHITECTURES[family]]
        transformers.AutoModelForImageClassification.from_config(config).save_pretrained(path)
    (path / "preprocessor_config.json").write_text(json.dumps(HUB[family] | changes))
    return ModelSettings(str(path), device="cpu")


def sample_of(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return Sample("it", {"image": file.getvalue()})


def check(transform, folder):
    """The pixels are the processor's up to the rounding of a resize; no worse where an image is of one colour."""
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    spread = torch.tensor(transform.std)[:, None, None] if isinstance(transform, ImageTransform) else torch.ones(1)
    mean, most = (MEAN_LEVELS, MOST_LEVELS) if isinstance(transform, ImageTransform) else (0.0, 0.0)
    for image in IMAGES:
        ours = transform.normalised(torch.from_numpy(transform.array(image, "it"))[None])[0]
        theirs = processor(image, return_tensors="pt")["pixel_values"][0]
        assert ours.shape == theirs.shape
        levels = (ours - theirs).abs() * spread * 255
        assert float(levels.mean()) <= mean
        assert float(levels.max()) <= most
    assert transform.size == tuple(theirs.shape[1:])


@pytest.mark.long
@pytest.mark.parametrize("name", CLASSES)
def test_every_processor_of_transformers_gives_its_own_pixels_or_is_refused(name, tmp_path):
    source = folder_of(tmp_path, {"image_processor_type": name, "clusters": [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]})
    if name in REFUSED:
        with pytest.raises(ModelError, match=f"image processor .*{REFUSED[name]}"):
            processor_transform(source)
    else:
        check(processor_transform(source), tmp_path)


@pytest.mark.parametrize("kind", HUB)
def test_a_checkpoint_of_the_hub_gets_its_processors_pixels(kind, tmp_path):
    transform = processor_transform(folder_of(tmp_path, HUB[kind], kind))
    assert isinstance(transform, ProcessorTransform) == (kind in AS_IT_IS)
    check(transform, tmp_path)


@pytest.mark.parametrize("family", TINY)
def test_a_checkpoint_whose_processor_has_an_integer_size_opens(family, tmp_path):
    network = NamedModel(saved(tmp_path, family)).open()
    assert network.loaded.transform.size == (224, 224)
    halves = network.split(["100%"], "float32")
    images = [noise(301, 203), noise(305, 207)]
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    with torch.inference_mode():
        ours = halves.full(halves.collate(halves.prepare([sample_of(one) for one in images])))
        theirs = network.loaded.model(**processor(images, return_tensors="pt")).logits
    assert float((ours - theirs).abs().max()) <= 0.05 * float(theirs.abs().max())


def test_transforms_that_were_right_keep_their_digest():
    """The transform of a store that was made before `crop_down` was a field, by the bytes that were hashed then."""
    transform = ImageTransform((256, 256), (224, 224), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic")
    facts = {
        "resize": (256, 256),
        "crop": (224, 224),
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "interpolation": "bicubic",
    }
    assert transform.digest == canonical_digest({**facts, "decoder": 1})
    assert transform.as_transformers is transform
    assert (
        ImageTransform((224, 224), (), *IMAGENET).as_transformers.digest
        == ImageTransform((224, 224), (), *IMAGENET).digest
    )
    assert ImageTransform((256,), (224, 224), *IMAGENET).as_transformers.crop_down


@pytest.mark.parametrize(
    "change", [{"resample": 2}, {"size": 192}, {"image_std": [0.3, 0.3, 0.3]}, {"do_rescale": False}]
)
def test_a_processor_used_as_it_is_is_part_of_the_recipe(change, tmp_path):
    first = processor_transform(folder_of(tmp_path, HUB["levit"]))
    assert isinstance(first, ProcessorTransform)
    other = processor_transform(folder_of(tmp_path, HUB["levit"] | change))
    assert first.digest != other.digest
    assert processor_transform(folder_of(tmp_path, HUB["levit"])).digest == first.digest


def test_a_store_and_a_run_find_the_processor_again(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "run").mkdir()
    network = NamedModel(saved(tmp_path / "model", "levit")).open()
    recipe = network.split(["100%"], "float32").recipe
    network.loaded.save(tmp_path / "run", None)
    check(network.loaded.transform, tmp_path / "run")
    provenance = {"model": str(tmp_path / "model"), **network.provenance}
    found = NamedModel(ModelSettings()).found_again(provenance, recipe, named=False)
    assert found.open().split(["100%"], "float32").recipe.preprocessor == recipe.preprocessor
    again = NamedModel(ModelSettings(str(tmp_path / "run"))).open()
    assert again.loaded.transform.digest == recipe.preprocessor
    # Its class appends to a field of its config.
    assert again.split(["100%"], "float32").recipe == recipe


def test_a_run_has_the_processor_of_its_checkpoint(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "run").mkdir()
    NamedModel(saved(tmp_path / "model", "beit")).open().loaded.save(tmp_path / "run", None)
    kept = transformers.AutoImageProcessor.from_pretrained(tmp_path / "run")
    assert type(kept) is type(transformers.AutoImageProcessor.from_pretrained(tmp_path / "model"))


def test_options_take_a_processors_place_together_or_not_at_all(tmp_path):
    name = saved(tmp_path, "levit").name
    with pytest.raises(UsageError, match="made by its own image processor"):
        NamedModel(ModelSettings(name, images=ImageSettings(mean=(0.5, 0.5, 0.5)))).open()
    whole = ImageSettings(resize=(256,), crop=(224,), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    transform = NamedModel(ModelSettings(name, images=whole)).open().loaded.transform
    assert transform == ImageTransform((256,), (224, 224), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), crop_down=True)


def test_views_of_a_processor_used_as_it_is_are_refused(tmp_path):
    halves = NamedModel(saved(tmp_path, "levit")).open().split(["100%"], "float32")
    view = view_of(sample_of(noise(50, 40)), augmentation("flip"), 1)
    with pytest.raises(UsageError, match=r"--views: .*its own image processor"):
        halves.prepare([view])
