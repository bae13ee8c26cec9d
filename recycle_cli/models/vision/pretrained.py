"""Image models of transformers: loaded with their image processor's transform, saved as transformers loads them."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import torch
import transformers
from torchvision.transforms import InterpolationMode
from transformers.image_utils import torch_pil_interpolation_mapping

from recycle_cli.errors import ModelError
from recycle_cli.models.embedding import merge_embedding, numbered, parameters_below, put_embedding
from recycle_cli.models.fields import architecture_proved
from recycle_cli.models.hub import UNREADABLE, Source, check_weights, first_line, place_of, quiet, read_json
from recycle_cli.models.identity import architecture_of
from recycle_cli.models.same_labels import fit_labels
from recycle_cli.models.task_layer import OWN, TaskLayer
from recycle_cli.models.vision.inputs import PIXELS
from recycle_cli.models.vision.processors import ProcessorTransform, opened, processor_transform, transform_of
from recycle_cli.models.vision.sources import LoadedImages
from recycle_cli.models.vision.timm_models import (
    computing,
    is_timm,
    keep_transform,
    labels_of_timm,
    options_of_timm,
    require_timm,
)
from recycle_cli.models.vision.transforms import ImageTransform, Transform
from recycle_cli.settings import EmbeddingSettings

CONFIG = "config.json"


def is_image_model(name: str, revision: str | None = None) -> bool:
    """Whether the name is a transformers model whose config is of an image classifier's kind.

    A name on the hub that cannot be looked up is taken for a text model, whose loading then says why.
    """
    config = read_json(name, CONFIG, revision)
    kind, auto = config.get("model_type"), transformers.models.auto.modeling_auto
    texts = auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
    if kind in texts and texts[kind] in (config.get("architectures") or ()):
        # Perceivers are of both kinds.
        return False
    return kind in auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES or is_timm(config)


def load_pretrained(
    source: Source, layer: TaskLayer = OWN, *, transform: Transform | None = None, seed: int = 0
) -> LoadedImages:
    """Load an image model that ends with `layer`, in eval and float32.

    An embedding layer takes the classifier's place; the outputs are then the numbers of the vector. A layer that the
    checkpoint does not have is made from `seed`. `transform` None: that of the checkpoint's image processor. Raises
    ModelError if the model cannot be loaded, or its processor does something else.
    """
    name = source.name
    if is_timm(read_json(name, CONFIG, source.revision)):
        require_timm(name)
    own = processor_transform(source) if transform is None else transform
    model, missing = _loaded(source, layer, layer.labels, seed)
    _check(name, model, missing)
    if layer.labels is not None and layer.head is None:
        missing |= _named_rows(source, layer, model, missing, seed)
    if layer.head is not None:
        missing |= _embedding(model, layer.head, seed)
    processor = _processor_for(own, source, model)
    return LoadedImages(
        name,
        model.eval(),
        own,
        tuple(model.config.id2label.get(number, f"LABEL_{number}") for number in range(model.config.num_labels)),
        {"library": "transformers", **architecture_of(computing(model.config.to_dict()))},
        weights=name,
        library="transformers",
        loads_with="AutoModelForImageClassification.from_pretrained",
        write=partial(_write, model=model, processor=processor),
        missing=missing,
    )


def with_architecture_proved(loaded: LoadedImages) -> LoadedImages:
    """The same with each field of its config that its features depend on in `architecture`, tried on one image."""
    model, size = loaded.model, loaded.transform.size
    # Of a model of timm, and of CLIP's towers, the features have no name of their own, and Perceiver's take no image:
    # their logits are compared.
    base = model.base_model
    if getattr(base, "config", None) is not model.config or PIXELS not in signature(base.forward).parameters:
        base = model
    device = next(model.parameters()).device
    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)).to(device)
    proved = architecture_proved(base, loaded.architecture, lambda one: one(**{PIXELS: image})[0])
    return replace(loaded, architecture=proved)


def _embedding(model: Any, head: EmbeddingSettings, seed: int) -> frozenset[str]:
    """Put a new embedding layer in the classifier's place; its parameters."""
    place, size = put_embedding(model, head, model.config.num_labels, seed)
    model.config.id2label = dict(enumerate(numbered(size)))
    model.config.label2id = {label: number for number, label in model.config.id2label.items()}
    model.config.problem_type = None
    return parameters_below(model, place)


def _write(folder: Path, *, model: Any, processor: Any) -> None:
    merge_embedding(model)
    with quiet():
        model.save_pretrained(folder)
        processor.save_pretrained(folder)


def _loaded(source: Source, layer: TaskLayer, labels: Sequence[str] | None, seed: int) -> tuple[Any, frozenset[str]]:
    """The model with a classifier for `labels`, and the names of what the checkpoint does not have in this shape."""
    # They decide nothing about the logits; but a tuple has no names, and attentions cannot be saved with sdpa.
    place_of(source.name, source.revision)
    check_weights(source.name, source.revision)
    options = source.options | {"return_dict": True, "output_attentions": False, "output_hidden_states": False}
    options |= options_of_timm(read_json(source.name, CONFIG, source.revision))
    if labels is not None:
        options["problem_type"] = layer.problem
        # PVT's config has a number of labels of its own.
        options["num_labels"] = len(labels)
        options["id2label"] = dict(enumerate(labels))
        options["label2id"] = {label: number for number, label in enumerate(labels)}
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model, report = transformers.AutoModelForImageClassification.from_pretrained(
                source.name,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **options,
            )
        except UNREADABLE as error:
            raise ModelError(f"model {source.name!r} cannot be loaded: {first_line(error)}") from error
        _put_back(model.config, transformers.AutoConfig.from_pretrained(source.name, **options))
    return model, frozenset(report["missing_keys"]) | {str(entry[0]) for entry in report["mismatched_keys"]}


def _put_back(config: Any, fresh: Any) -> None:
    """Give a config the fields that building the model changed: LeViT's grows by one stage at every load."""
    own, first = architecture_of(config.to_dict()), architecture_of(fresh.to_dict())
    for name in own.keys() & first.keys():
        if own[name] != first[name]:
            setattr(config, name, getattr(fresh, name))


def _named_rows(source: Source, layer: TaskLayer, model: Any, missing: frozenset[str], seed: int) -> frozenset[str]:
    """Keep the classifier's rows by the names of its classes. Returns the parameters that are new."""
    labels = tuple(layer.labels or ())
    config = read_json(source.name, CONFIG, source.revision)
    names = config.get("id2label") or (labels_of_timm(source) if is_timm(config) else {})
    known = [str(names.get(str(number), f"LABEL_{number}")) for number in range(len(labels))]
    if len(names) > len(labels):
        return frozenset()
    return fit_labels(source.name, model, known, labels, missing, seed)


def _processor_for(transform: Transform, source: Source, model: Any) -> Any:
    """An image processor that does the same as the transform: the checkpoint's own if it does. A timm model's is read
    from its config, which is changed."""
    try:
        processor = opened(source)
        if transform_of(processor, source.name).digest == transform.digest:
            return processor
    except ModelError:
        pass
    if isinstance(transform, ProcessorTransform):
        return transform.processor
    assert isinstance(transform, ImageTransform)
    if is_timm(model.config.to_dict()):
        keep_transform(model.config, transform)
        return transformers.TimmWrapperImageProcessor(pretrained_cfg=model.config.pretrained_cfg)
    resize, crop = transform.resize, transform.crop
    sides = {"shortest_edge": resize[0]} if len(resize) == 1 else dict(zip(("height", "width"), resize, strict=True))
    return transformers.BitImageProcessor(
        do_resize=bool(resize),
        size=sides or {"height": crop[0], "width": crop[1]},
        do_center_crop=bool(crop),
        crop_size={"height": transform.size[0], "width": transform.size[1]},
        do_rescale=True,
        rescale_factor=1 / 255,
        do_normalize=True,
        image_mean=list(transform.mean),
        image_std=list(transform.std),
        resample=int(torch_pil_interpolation_mapping[InterpolationMode(transform.interpolation)]),
        do_convert_rgb=True,
    )


def _check(name: str, model: Any, missing: frozenset[str]) -> None:
    """Raise ModelError if more than the task layer is missing from the checkpoint."""
    base = f"{model.base_model_prefix}."
    absent = {key for key in missing if key.startswith(base)}
    if absent:
        # The task layer may lie in the base, as timm's does: it is what another number of labels gives another shape.
        absent -= _of_labels(model)
    if absent:
        raise ModelError(
            f"model {name!r}: the checkpoint lacks {min(absent)}, or has it in another shape than its config"
        )


def _of_labels(model: Any) -> set[str]:
    """Names of the parameters whose shape follows the number of labels."""
    config = deepcopy(model.config)
    config.num_labels = model.config.num_labels + 1
    with quiet(), torch.random.fork_rng(devices=[]):
        other = dict(type(model)(config).named_parameters())
    return {name for name, one in model.named_parameters() if name not in other or other[name].shape != one.shape}
