"""Image processors of transformers: read as a transform if that gives the same pixels, else used as they are."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers
from PIL import Image
from torch import Tensor
from transformers.models.auto.image_processing_auto import get_image_processor_class_from_name

from recycle_cli.errors import ModelError, RecycleError
from recycle_cli.models.hub import Source, first_line, quiet, read_json
from recycle_cli.models.vision.decoding import DECODER
from recycle_cli.models.vision.inputs import PIXELS
from recycle_cli.models.vision.transforms import ImageTransform, Transform, check_length, from_json, of_processor
from recycle_cli.recipe import canonical_digest

PROCESSOR = "preprocessor_config.json"
TIMM = "TimmWrapperImageProcessor"

EXACT = 1e-3
"""Levels of 255 that images of one colour may differ by: no rounding of a resize is in them."""

MEAN_LEVELS, MOST_LEVELS = 0.5, 8.0
"""Levels of 255 that noise may differ by, in the mean and at most: rounding. Pillow 13 takes the cheaper of a resize's
two passes first, PyTorch the horizontal one, and both round between them: up to 0.28 and 4 were measured where one side
grows and the other shrinks, else 0.008 and 2. A crop one pixel off is 15 in the mean, another filter 5."""

_SHAPES = ((301, 203), (203, 317), (37, 29))
"""Width and height of the images that show whether a processor gives one size for all."""


@dataclass(frozen=True)
class ProcessorTransform:
    """A transformers image processor, used as it is. `facts`: its class and its full configuration."""

    processor: Any
    size: tuple[int, int]
    facts: dict[str, Any]

    @property
    def digest(self) -> str:
        """Part of the recipe: equal digests give equal pixels."""
        return canonical_digest({**self.facts, "decoder": DECODER})

    def array(self, image: Image.Image, name: str) -> npt.NDArray[Any]:
        """The processor's pixels, float32 (3, H, W). Raises DataError if the image is far too long for its width."""
        check_length(image, max(self.size), name)
        return pixels_of(self.processor, image).numpy()

    def normalised(self, pixels: Tensor) -> Tensor:
        """The pixels as they are: the processor has normalised them."""
        return pixels.float()


def processor_transform(source: Source) -> Transform:
    """What a checkpoint's image processor does. Raises ModelError if there is none, or if it cannot be used."""
    return transform_of(opened(source), source.name)


def opened(source: Source) -> Any:
    """The image processor that transformers opens for a checkpoint. Raises ModelError."""
    with quiet():
        try:
            return transformers.AutoImageProcessor.from_pretrained(source.name, **source.options)
        except MemoryError:
            raise
        except Exception as error:  # a processor's code and files may raise anything
            if not read_json(source.name, PROCESSOR, source.revision):
                raise ModelError(
                    f"model {source.name!r}: it has no {PROCESSOR}; expected a model saved with its image processor"
                ) from error
            raise _unusable(source.name, "it", first_line(error)) from error


def transform_of(processor: Any, name: str) -> Transform:
    """The transform whose pixels are the processor's, else the processor itself.

    Raises ModelError for a processor that does not give each image the same, as pixels of one size and nothing else.
    """
    used = _as_it_is(processor, name)
    try:
        read = of_processor(processor.to_dict(), name)
    except RecycleError:
        return used
    # timm crops as torchvision does.
    return next((one for one in (read.as_transformers, read) if same_pixels(one, processor)), used)


def transform_from(facts: Mapping[str, Any], source: Source) -> Transform:
    """A transform made again from its facts. Raises ModelError."""
    if "processor" not in facts:
        return from_json(facts)
    made = get_image_processor_class_from_name(facts["processor"])
    if made is None or facts["processor"] == TIMM:
        # Its code came with the model, or what it is made from is in the model's config.
        return processor_transform(source)
    return _as_it_is(made.from_dict(dict(facts["config"])), source.name)


def same_pixels(transform: ImageTransform, processor: Any) -> bool:
    """Whether a transform gives a processor's pixels, for images of one colour and for noise of several shapes."""
    for image, mean, most in _probes(transform):
        ours = transform.normalised(torch.from_numpy(transform.array(image, "probe"))[None])[0]
        theirs = pixels_of(processor, image)
        if ours.shape != theirs.shape:
            return False
        levels = (ours - theirs).abs() * torch.tensor(transform.std)[:, None, None] * 255
        if not (float(levels.mean()) <= mean and float(levels.max()) <= most):
            return False
    return True


def pixels_of(processor: Any, image: Image.Image) -> Tensor:
    """A processor's pixels of one image, float32."""
    return torch.as_tensor(processor(image, return_tensors="pt")[PIXELS])[0].float()


def _as_it_is(processor: Any, name: str) -> ProcessorTransform:
    kind = type(processor).__name__
    found = []
    for width, height in _SHAPES:
        image = _noise(width, height)
        try:
            outputs = [processor(image, return_tensors="pt") for _ in range(2)]
        except MemoryError:
            raise
        except Exception as error:  # a processor's code may raise anything
            raise _unusable(name, kind, f"fails for an image of {height} x {width}: {first_line(error)}") from error
        if set(outputs[0]) != {PIXELS}:
            raise _unusable(name, kind, f"gives {', '.join(sorted(outputs[0]))}, expected {PIXELS} alone")
        first, again = (torch.as_tensor(one[PIXELS]) for one in outputs)
        if not torch.equal(first, again):
            raise _unusable(name, kind, "gives one image other pixels each time")
        found.append(tuple(first.shape))
    shape = found[0]
    if len(set(found)) > 1 or len(shape) != 4 or shape[:2] != (1, 3):
        raise _unusable(name, kind, "does not give all images one size of three colours")
    config = {key: value for key, value in _plain(processor.to_dict()).items() if value is not None}
    return ProcessorTransform(processor, (shape[2], shape[3]), {"processor": kind, "config": config})


def _unusable(name: str, kind: str, why: str) -> ModelError:
    return ModelError(
        f"model {name!r}: its image processor ({kind}) cannot be used: {why}; give --resize, --crop, --mean and --std"
    )


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(config, default=str, sort_keys=True))
    return plain


def _probes(transform: ImageTransform) -> Iterator[tuple[Image.Image, float, float]]:
    """Images, with the levels that they may differ by in the mean and at most."""
    for colour in ((13, 130, 250), (255, 0, 77)):
        yield Image.new("RGB", (47, 33), colour), EXACT, EXACT
    side = min(transform.size) * 5 // 4 | 1
    wide, tall = _wide(transform, side, 0), _wide(transform, side, 1)
    small, smaller = min(transform.size) // 4 | 1, min(transform.size) // 5 | 1
    grey = _noise(small, smaller).convert("L").convert("RGB")
    for image in (_noise(wide, side), _noise(side, tall), _noise(4 * small, small), grey):
        yield image, MEAN_LEVELS, MOST_LEVELS


def _wide(transform: ImageTransform, side: int, axis: int) -> int:
    """A length of the longer side that leaves an odd margin about the crop, of the kind that libraries round apart.

    `axis`: 0 for a width, 1 for a height.
    """
    start = side * 3 // 2 | 1
    if len(transform.resize) == 2 or not transform.crop:
        return start
    crop = transform.crop[1 - axis]
    lengths = range(start, 2 * start)
    resized = [(length, transform.resize[0] * length // side if transform.resize else length) for length in lengths]
    return next((length for length, size in resized if (size - crop) % 4 == 3), start)


def _noise(width: int, height: int) -> Image.Image:
    generator = np.random.default_rng((width, height))
    slope = np.linspace(0, 127, width)[None, :, None]
    return Image.fromarray((generator.integers(0, 128, (height, width, 3)) + slope).astype(np.uint8))
