"""Turn an image into a model's input: resized and cropped once in uint8, normalised on the model's device."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F  # noqa: N812 - the name everybody knows it by

from recycle_cli.errors import DataError, ModelError, UsageError
from recycle_cli.models.vision.decoding import DECODER, MAX_PIXELS
from recycle_cli.recipe import canonical_digest

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ImageTransform:
    """Resize, crop in the middle, scale to 0..1, subtract `mean`, divide by `std` (of red, green and blue).

    resize  (shorter side,) or (height, width); () leaves the size
    crop    (height, width); () if the resized image has the model's size already
    """

    resize: tuple[int, ...]
    crop: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bilinear"

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
    def digest(self) -> str:
        """Part of the recipe: equal digests give equal pixels."""
        return canonical_digest({**asdict(self), "decoder": DECODER})

    def fitted(self, image: Image.Image, name: str) -> Image.Image:
        """The image resized and cropped to `size`. Raises DataError if it is far too long for its width."""
        if self.resize:
            longest = max(image.size) / min(image.size) * self.resize[0]
            if len(self.resize) == 1 and longest * self.resize[0] > MAX_PIXELS:
                width, height = image.size
                raise DataError(
                    f"{name}: {width} x {height} pixels are too long for their width to be resized; crop it"
                )
            image = F.resize(image, list(self.resize), InterpolationMode(self.interpolation))
        return F.center_crop(image, list(self.crop)) if self.crop else image

    def normalised(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) uint8 as the model takes them, float32, on the device that they are on."""
        scaled = pixels.float() / 255
        mean, std = torch.tensor([self.mean, self.std], device=pixels.device)[:, None, :, None, None]
        return (scaled - mean) / std


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
    """A transform read back from `asdict`, whose tuples JSON has made lists."""
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
    """The transform that a transformers image processor's config describes.

    Raises ModelError for one that does something else than resize, crop in the middle, rescale and normalise.
    """
    size = _sides(processor.get("size"))
    resize = size if processor.get("do_resize", True) else ()
    crop = _sides(processor.get("crop_size")) if processor.get("do_center_crop") else ()
    if (share := processor.get("crop_pct")) and len(size) == 1:
        # ConvNeXT: up to 384 pixels the shorter side is resized to size / share and the middle cropped, else squeezed.
        whole = (size[0], size[0])
        resize, crop = ((int(size[0] / share),), whole) if size[0] < 384 else (whole, ())
    if not size or abs(processor.get("rescale_factor", 1 / 255) - 1 / 255) > 1e-9 or processor.get("do_pad"):
        raise ModelError(
            f"model {name!r}: its image processor does more than resize, crop and normalise; give --resize, --crop, "
            "--mean and --std"
        )
    modes = {0: "nearest", 2: "bilinear", 3: "bicubic"}
    normalises = processor.get("do_normalize", True)
    return ImageTransform(
        resize=resize,
        crop=_square(crop),
        mean=tuple(processor["image_mean"]) if normalises else (0.0, 0.0, 0.0),
        std=tuple(processor["image_std"]) if normalises else (1.0, 1.0, 1.0),
        interpolation=modes.get(int(processor.get("resample") or 2), "bilinear"),
    )


def _sides(size: Any) -> tuple[int, ...]:
    if isinstance(size, int):
        return (size,)
    if not isinstance(size, Mapping):
        return ()
    if size.get("shortest_edge"):
        return (int(size["shortest_edge"]),)
    return (int(size["height"]), int(size["width"])) if size.get("height") else ()
