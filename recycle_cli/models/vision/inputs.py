"""Image files to batches of pixels: decoded and resized by threads, ahead of the model."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import torch

from recycle_cli.errors import UsageError
from recycle_cli.keys import Sample
from recycle_cli.models.preprocessor import Inputs, Prepared
from recycle_cli.models.vision.decoding import decode
from recycle_cli.models.vision.transforms import ImageTransform, Transform, array_of
from recycle_cli.models.vision.views import draw_for, parse_view
from recycle_cli.runtime.threads import usable_cores

PIXELS = "pixel_values"


@dataclass(frozen=True)
class ImageInputs:
    """The preprocessor of an image model. `prepare` gives uint8 (3, H, W), a quarter of the bytes of floats; float32
    if the images are made by the model's own image processor."""

    transform: Transform
    modality = "image"
    row_cost = 128
    """Tokens that an image counts for in a batch that is limited by tokens: 8,192 tokens are 64 images."""

    @property
    def digest(self) -> str:
        """The transform's digest."""
        return self.transform.digest

    def prepare(self, samples: Sequence[Sample]) -> list[Prepared]:
        """Decode and resize samples, views augmented.

        Raises DataError for the first that is no usable image, UsageError for views of images that the model's own
        image processor makes.
        """
        return list(_workers().map(self._prepared, samples))

    def collate(self, prepared: Sequence[Prepared]) -> Inputs:
        """Pixels of all images, (B, 3, H, W)."""
        return {PIXELS: torch.from_numpy(np.stack([one[PIXELS] for one in prepared]))}

    def lengths(self, prepared: Sequence[Prepared]) -> npt.NDArray[np.int64]:
        """One row an image."""
        return np.ones(len(prepared), dtype=np.int64)

    def _prepared(self, sample: Sample) -> Prepared:
        content, name = sample.fields["image"], f"image {sample.id}"
        assert isinstance(content, bytes)
        image = decode(content, name)
        if (view := sample.fields.get("view")) is None:
            return {PIXELS: self.transform.array(image, name)}
        if not isinstance(self.transform, ImageTransform):
            raise UsageError(
                "--views: this model's images are made by its own image processor, which makes no views; leave the "
                "option out, or give --resize, --crop, --mean and --std in place of the processor"
            )
        draw = draw_for(content, str(view))
        return {PIXELS: array_of(parse_view(str(view)).apply(image, self.transform, name, draw))}


@cache
def _workers() -> ThreadPoolExecutor:
    # Threads, not processes: Pillow decodes and resizes without the interpreter's lock, and nothing is copied.
    return ThreadPoolExecutor(usable_cores(), thread_name_prefix="recycle-decode")
