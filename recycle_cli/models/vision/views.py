"""Deterministic augmented views: the same image, augmentation and number always give the same pixels.

A view is a sample of its own: its key covers the file's bytes and the field `view`, augmentation and number.
So views of several augmentations live in one store beside the plain images, and more can be added later.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import xxhash
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F  # noqa: N812 - the name everybody knows it by

from recycle_cli.errors import UsageError
from recycle_cli.keys import Sample
from recycle_cli.models.vision.transforms import ImageTransform
from recycle_cli.settings import ViewSettings

VERSION = 1
"""Counts up when the same words begin to give other pixels; part of a view's key."""

_STEP = re.compile(r"([a-z-]+)(?:\(([0-9.]+)\))?")

Draw = np.random.Generator


@dataclass(frozen=True)
class _Kind:
    """An augmentation step: its default number, and the range that the number must lie in."""

    default: float
    least: float
    most: float
    meaning: str


STEPS = {
    "random-resized-crop": _Kind(0.08, 0.01, 1.0, "least share of the area"),
    "random-crop": _Kind(0.125, 0.01, 1.0, "margin on each side, as a share of the side"),
    "flip": _Kind(0.5, 0.0, 1.0, "chance to mirror left and right"),
    "color-jitter": _Kind(0.4, 0.01, 1.0, "most by which brightness, contrast and saturation change"),
}


@dataclass(frozen=True)
class Augmentation:
    """Steps with their numbers, in order."""

    steps: tuple[tuple[str, float], ...]

    @property
    def name(self) -> str:
        """The canonical words with every number, which a view's key covers."""
        return ",".join(f"{step}({number:g})" for step, number in self.steps) + f"/{VERSION}"

    def view(self, number: int) -> str:
        """What a view's field `view` holds; `number` counts from 1."""
        return f"{self.name}#{number}"

    def apply(self, image: Image.Image, transform: ImageTransform, name: str, draw: Draw) -> Image.Image:
        """A view of the decoded image, of the size that the transform gives."""
        steps = dict(self.steps)
        if "random-resized-crop" in steps:
            image = _resized_crop(image, transform, steps["random-resized-crop"], draw)
        else:
            image = transform.fitted(image, name)
        for step, number in self.steps:
            if step in _AFTER:
                image = _AFTER[step](image, number, draw)
        return image


def augmentation(words: str) -> Augmentation:
    """Read `random-resized-crop,flip,color-jitter(0.4)`. Raises UsageError for an unknown step or number."""
    steps = []
    for word in words.split(","):
        found = _STEP.fullmatch(word.strip().lower())
        if not found or found[1] not in STEPS:
            known = ", ".join(f"{name}({kind.default:g})" for name, kind in STEPS.items())
            raise UsageError(f"--augment {words!r}: {word.strip()!r} is no known transform; expected some of {known}")
        kind = STEPS[found[1]]
        number = float(found[2]) if found[2] else kind.default
        if not kind.least <= number <= kind.most:
            raise UsageError(
                f"--augment {words!r}: {word.strip()!r} takes {kind.least:g} to {kind.most:g} ({kind.meaning})"
            )
        steps.append((found[1], number))
    names = [name for name, _ in steps]
    if len(set(names)) < len(names) or {"random-resized-crop", "random-crop"} <= set(names):
        raise UsageError(f"--augment {words!r}: expected each transform once, and one kind of crop")
    return Augmentation(tuple(steps))


def view_of(sample: Sample, words: Augmentation, number: int) -> Sample:
    """View `number` (from 1) of an image, as a sample with a key of its own."""
    return replace(sample, fields={**sample.fields, "view": words.view(number)})


def views_of(settings: ViewSettings, modality: str) -> list[Callable[[Sample], Sample]]:
    """A function for each view that the settings ask for. Raises UsageError if the samples are no images."""
    if settings.views and modality != "image":
        raise UsageError(f"--views {settings.views}: only images have views; leave the option out for texts")
    if not settings.views and settings.augment != ViewSettings().augment:
        raise UsageError(f"--augment {settings.augment}: makes --views, of which none are asked for; give their number")
    steps = augmentation(settings.augment)
    return [partial(view_of, words=steps, number=number) for number in range(1, settings.views + 1)]


def names_of_views(settings: ViewSettings) -> list[str]:
    """The field `view` of each view that the settings ask for."""
    steps = augmentation(settings.augment) if settings.views else Augmentation(())
    return [steps.view(number) for number in range(1, settings.views + 1)]


def parse_view(view: str) -> Augmentation:
    """The augmentation that the field `view` names."""
    words, _, _ = view.partition("/")
    return augmentation(words)


def draw_for(content: bytes, view: str) -> Draw:
    """The random numbers of one view of one image."""
    seed = xxhash.xxh3_128(content)
    seed.update(view.encode())
    return np.random.default_rng(seed.intdigest())


def _resized_crop(image: Image.Image, transform: ImageTransform, least: float, draw: Draw) -> Image.Image:
    """As torchvision's RandomResizedCrop: area from `least` to 1, aspect 3/4 to 4/3, ten attempts, else the middle."""
    width, height = image.size
    for _ in range(10):
        area = width * height * draw.uniform(least, 1.0)
        aspect = np.exp(draw.uniform(np.log(3 / 4), np.log(4 / 3)))
        w, h = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top, left = int(draw.integers(0, height - h + 1)), int(draw.integers(0, width - w + 1))
            break
    else:
        w, h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
        top, left = (height - h) // 2, (width - w) // 2
    mode = InterpolationMode(transform.interpolation)
    return F.resized_crop(image, top, left, h, w, list(transform.size), mode)


def _crop(image: Image.Image, margin: float, draw: Draw) -> Image.Image:
    """Moved by up to the margin each way; black comes in from outside."""
    width, height = image.size
    across, down = round(width * margin), round(height * margin)
    left, top = int(draw.integers(-across, across + 1)), int(draw.integers(-down, down + 1))
    return F.crop(image, top, left, height, width)


def _flip(image: Image.Image, chance: float, draw: Draw) -> Image.Image:
    return F.horizontal_flip(image) if draw.uniform() < chance else image


def _jitter(image: Image.Image, most: float, draw: Draw) -> Image.Image:
    changes = [F.adjust_brightness, F.adjust_contrast, F.adjust_saturation]
    factors = draw.uniform(1 - most, 1 + most, size=len(changes))
    for number in draw.permutation(len(changes)).tolist():
        image = changes[number](image, float(factors[number]))
    return image


_AFTER: dict[str, Callable[[Image.Image, float, Draw], Image.Image]] = {
    "random-crop": _crop,
    "flip": _flip,
    "color-jitter": _jitter,
}
