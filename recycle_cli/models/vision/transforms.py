"""Turn an image into a model's input: resized and cropped once in uint8, normalised on the model's device."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F  # noqa: N812 - the name everybody knows it by
from transformers.image_utils import pil_torch_interpolation_mapping

from recycle_cli.errors import DataError, ModelError, UsageError
from recycle_cli.models.vision.decoding import DECODER, MAX_PIXELS
from recycle_cli.recipe import canonical_digest

Pixels = npt.NDArray[np.uint8]


class Transform(Protocol):
    """How an image becomes a model's input: the steps that we know, or an image processor of transformers."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the model's input."""

    @property
    def facts(self) -> dict[str, Any]:
        """Plain data from which it is made again."""

    @property
    def digest(self) -> str:
        """Part of the recipe: equal digests give equal pixels."""

    def array(self, image: Image.Image, name: str) -> npt.NDArray[Any]:
        """A decoded image as a batch takes it, (3, H, W). Raises DataError if it is far too long for its width."""

    def normalised(self, pixels: Tensor) -> Tensor:
        """Arrays of a batch (B, 3, H, W) as the model takes them, float32, on the device that they are on."""


@dataclass(frozen=True)
class ImageTransform:
    """Resize, crop in the middle, scale to 0..1, subtract `mean`, divide by `std` (of red, green and blue).

    resize     (shorter side,) or (height, width); () leaves the size
    crop       (height, width); () if the resized image has the model's size already
    crop_down  whether half of an odd margin is rounded down, as transformers does, or to the even number, as
               torchvision does: a pixel apart for a quarter of all margins
    """

    resize: tuple[int, ...]
    crop: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bilinear"
    crop_down: bool = False

    def __post_init__(self) -> None:
        if not self.crop and len(self.resize) != 2:
            raise UsageError("images need one size: give --crop, or --resize with height and width")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise UsageError("--mean and --std take three numbers, for red, green and blue; std above 0")
        if any(not 1 <= side <= 4096 for side in (*self.resize, *self.crop)):
            raise UsageError("--resize and --crop take 1 to 4,096 pixels")
        if self.interpolation not in {mode.value for mode in InterpolationMode}:
            raise UsageError(f"interpolation {self.interpolation!r}: expected bilinear, bicubic or nearest")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the model's input."""
        height, width = self.crop or self.resize
        return height, width

    @property
    def facts(self) -> dict[str, Any]:
        """Its fields; `crop_down` is left out if it is false, as by the versions that did not have it."""
        return {name: value for name, value in asdict(self).items() if name != "crop_down" or value}

    @property
    def digest(self) -> str:
        """Part of the recipe: equal digests give equal pixels."""
        return canonical_digest({**self.facts, "decoder": DECODER})

    @property
    def as_transformers(self) -> "ImageTransform":
        """The same with the crop as transformers rounds it; unchanged if no image has a margin that it matters for."""
        margins = [side - crop for side, crop in zip(self.resize, self.crop, strict=False)]
        fixed = not self.crop or len(self.resize) == 2
        return self if fixed and not any(margin % 4 == 3 for margin in margins) else replace(self, crop_down=True)

    def array(self, image: Image.Image, name: str) -> Pixels:
        """The image as uint8 (3, H, W). Raises DataError if it is far too long for its width."""
        return array_of(self.fitted(image, name))

    def fitted(self, image: Image.Image, name: str) -> Image.Image:
        """The image resized and cropped to `size`. Raises DataError if it is far too long for its width."""
        if self.resize:
            if len(self.resize) == 1:
                check_length(image, self.resize[0], name)
            image = F.resize(image, list(self.resize), InterpolationMode(self.interpolation))
        if self.crop and self.crop_down:
            return _middle(image, *self.crop)
        return F.center_crop(image, list(self.crop)) if self.crop else image

    def normalised(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) uint8 as the model takes them, float32, on the device that they are on."""
        scaled = pixels.float() / 255
        mean, std = torch.tensor([self.mean, self.std], device=pixels.device)[:, None, :, None, None]
        return (scaled - mean) / std


def check_length(image: Image.Image, shorter: int, name: str) -> None:
    """Raise DataError for an image that would be far too large once its shorter side is resized."""
    width, height = image.size
    if max(image.size) / min(image.size) * shorter * shorter > MAX_PIXELS:
        raise DataError(f"{name}: {width} x {height} pixels are too long for their width to be resized; crop it")


def _middle(image: Image.Image, height: int, width: int) -> Image.Image:
    """The middle of an image; black comes in from outside. Half a margin is rounded towards zero."""
    left, top = int((image.width - width) / 2), int((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))


def array_of(image: Image.Image) -> Pixels:
    """An RGB image as uint8 (3, H, W)."""
    return np.ascontiguousarray(np.asarray(image, dtype=np.uint8).transpose(2, 0, 1))


def changed(
    transform: ImageTransform,
    resize: Sequence[int] = (),
    crop: Sequence[int] = (),
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
) -> ImageTransform:
    """The transform with the user's values in place of the weights' own; a new size without a crop crops to it."""
    given = {"resize": tuple(resize), "mean": tuple(mean), "std": tuple(std), "crop": _square(crop)}
    kept: dict[str, Any] = {name: value for name, value in given.items() if value}
    if resize and not crop:
        kept["crop"] = _square(resize) if len(resize) == 1 else ()
    return replace(transform, **kept)


def _square(sides: Sequence[int]) -> tuple[int, ...]:
    """One side as height and width."""
    return tuple(sides) * (2 if len(sides) == 1 else 1)


def from_json(data: Mapping[str, Any]) -> ImageTransform:
    """A transform read back from its facts, whose tuples JSON has made lists."""
    fields: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}
    return ImageTransform(**fields)


def of_torchvision(preset: Any) -> ImageTransform:
    """The transform that comes with torchvision's weights, `weights.transforms()`."""
    return ImageTransform(
        resize=tuple(preset.resize_size),
        crop=_square(preset.crop_size),
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        interpolation=preset.interpolation.value,
    )


def of_processor(processor: Mapping[str, Any], name: str) -> ImageTransform:
    """The transform that a transformers image processor's config seems to describe: its pixels are the proof.

    Raises ModelError for one that does something else than resize, crop in the middle, rescale and normalise.
    """
    if "data_config" in processor:
        return _of_timm(processor["data_config"])
    size = _sides(processor.get("size"))
    resize = size if processor.get("do_resize", True) else ()
    crop = _sides(processor.get("crop_size")) if processor.get("do_center_crop") else ()
    if (share := processor.get("crop_pct")) and len(size) == 1:
        # ConvNeXT: up to 384 pixels the shorter side is resized to size / share and the middle cropped, else squeezed.
        whole = (size[0], size[0])
        resize, crop = ((int(size[0] / share),), whole) if size[0] < 384 else (whole, ())
    mean, std, mode = processor.get("image_mean"), processor.get("image_std"), processor.get("resample")
    if not processor.get("do_normalize", True):
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    rescales = abs(processor.get("rescale_factor", 1 / 255) - 1 / 255) <= 1e-9
    modes = {None: InterpolationMode.BILINEAR, **pil_torch_interpolation_mapping}
    if not (size and rescales and mean and std and mode in modes) or processor.get("do_pad"):
        raise ModelError(
            f"model {name!r}: its image processor does more than resize, crop and normalise; give --resize, --crop, "
            "--mean and --std"
        )
    return ImageTransform(resize, _square(crop), tuple(mean), tuple(std), modes[mode].value)


def _of_timm(config: Mapping[str, Any]) -> ImageTransform:
    """The transform that timm's `create_transform` seems to make of a data config for evaluation."""
    crop = (int(config["input_size"][1]), int(config["input_size"][2]))
    height, width = (int(side / config["crop_pct"]) for side in crop)
    resize = (height, width) if config["crop_mode"] == "squash" else (height,)
    rest = (tuple(config["mean"]), tuple(config["std"]), str(config["interpolation"]))
    return ImageTransform(resize, () if resize == crop else crop, *rest)


def _sides(size: Any) -> tuple[int, ...]:
    """A size in the two forms that we know: a shorter side, or height and width."""
    if isinstance(size, int):
        return (size,)
    given = {key: value for key, value in size.items() if value is not None} if isinstance(size, Mapping) else {}
    if given.keys() == {"shortest_edge"}:
        return (int(given["shortest_edge"]),)
    return (int(given["height"]), int(given["width"])) if given.keys() == {"height", "width"} else ()
