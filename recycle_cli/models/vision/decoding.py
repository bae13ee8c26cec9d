"""Bytes of an image file to 8-bit RGB, upright; every file that cannot be one is an error of one line."""

import io
import struct
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from recycle_cli.errors import DataError
from recycle_cli.models.hub import first_line

MAX_PIXELS = 89_478_485
"""Larger images are refused before they are decoded (Pillow's own limit, a quarter of a gibibyte as RGB)."""

MIN_SIDE = 2
"""Pixels. Broken downloads and tracking images have one pixel."""

DECODER = 1
"""Counts up when the pixels that a file gives change; part of a store's recipe."""

# Pillow warns from the limit on and refuses from twice the limit on; we refuse from the limit on.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

_BROKEN = (OSError, ValueError, TypeError, SyntaxError, EOFError, IndexError, KeyError, struct.error, OverflowError)
"""The exceptions of Pillow's decoders for damaged files; each format has its own."""


def decode(content: bytes, name: str) -> Image.Image:
    """An upright RGB image of 8 bits a channel.

    The EXIF orientation is applied; transparency is laid on white; grey is repeated; CMYK, YCbCr, LAB and palettes are
    converted; 16 bits are reduced to their upper 8; of an animation the first frame is taken. Raises DataError, with
    `name` in it, for a file that is no image, is damaged, is larger than MAX_PIXELS or narrower than MIN_SIDE.
    """
    try:
        image = Image.open(io.BytesIO(content))
        _check_size(image, name)
        image.load()
        return _rgb(ImageOps.exif_transpose(image), name)
    except UnidentifiedImageError:
        raise DataError(f"{name}: {_unknown(content)}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(f"{name}: the image has too many pixels (at most {MAX_PIXELS:,}); make it smaller") from None
    except _BROKEN as error:
        raise DataError(f"{name}: the image is damaged ({first_line(error)}); replace the file") from error


def _check_size(image: Image.Image, name: str) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise DataError(
            f"{name}: the image has {width:,} x {height:,} pixels, at most {MAX_PIXELS:,} in all are decoded; "
            "make it smaller"
        )
    if min(width, height) < MIN_SIDE:
        raise DataError(
            f"{name}: the image has {width} x {height} pixels, expected at least {MIN_SIDE} x {MIN_SIDE}; "
            "was it downloaded whole?"
        )


def _rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode == "F":
        raise DataError(f"{name}: the image has floating-point pixels, whose range is not known; save it with 8 bits")
    if image.mode.startswith("I"):
        image = _upper_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _upper_bits(image: Image.Image) -> Image.Image:
    """16-bit grey to 8; Pillow by itself would clip it to 255, which leaves a white image."""
    values = np.clip(np.asarray(image).astype(np.int64), 0, 2**16 - 1) >> 8
    return Image.fromarray(values.astype(np.uint8))


def _unknown(content: bytes) -> str:
    if not content:
        return "the file is empty, expected an image"
    return "the file is not an image of a known format (JPEG, PNG, WebP, GIF, BMP, TIFF); replace it or leave it out"
