"""Bytes of an image file to 8-bit RGB, upright; every file that cannot be one is an error of one line."""

import io
import warnings
from typing import Any, cast

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import BITSPERSAMPLE, SAMPLEFORMAT
from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION as PHOTOMETRIC

from recycle_cli.errors import DataError, RecycleError
from recycle_cli.models.hub import first_line
from recycle_cli.pointers import what_pointer

MAX_PIXELS = 89_478_485
"""Larger images are refused before they are decoded (Pillow's own limit, a quarter of a gibibyte as RGB)."""

MIN_SIDE = 2
"""Pixels. Broken downloads and tracking images have one pixel."""

DECODER = 1
"""Counts up when the pixels that a file gives change; part of a store's recipe."""

# Pillow warns from the limit on and refuses from twice the limit on; we refuse from the limit on.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

_SIXTEEN_BITS = ("PNG", "PPM")
"""Formats whose integer pixels have 16 bits by their definition, whatever mode Pillow gives them."""


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
        upright = ImageOps.exif_transpose(image)
        return _rgb(_eight_bits(image, upright, name))
    except UnidentifiedImageError:
        raise DataError(f"{name}: {_unknown(content)}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(f"{name}: the image has too many pixels (at most {MAX_PIXELS:,}); make it smaller") from None
    except (RecycleError, MemoryError):
        raise
    except Exception as error:  # each of Pillow's decoders has exceptions of its own for damaged files
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


def _rgb(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bits(opened: Image.Image, image: Image.Image, name: str) -> Image.Image:
    """16-bit grey to its upper 8 bits; Pillow by itself would clip it to 255, which leaves a white image.

    `opened` knows the format of the file that `image` is of. Raises DataError for pixels whose range is not known.
    """
    if image.mode == "F":
        raise DataError(f"{name}: the image has floating-point pixels, whose range is not known; save it with 8 bits")
    if not image.mode.startswith("I"):
        return image
    if not _has_sixteen_bits(opened):
        raise DataError(
            f"{name}: the image has integer pixels ({opened.format}, mode {image.mode}) whose range is not known, "
            "expected 8 bits or 16 without a sign; scale it to 8 bits and save it again"
        )
    return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).astype(np.uint8))


def _has_sixteen_bits(opened: Image.Image) -> bool:
    """Whether 0 is black and 2^16 - 1 is white, as the file itself says."""
    if opened.format == "TIFF":
        tags = cast(Any, opened).tag_v2
        # A sample of 12 bits would come in the mode of 16, and one of which 0 is white is not turned over.
        return tags.get(BITSPERSAMPLE) == (16,) and tags.get(PHOTOMETRIC) == 1 and tags.get(SAMPLEFORMAT, (1,)) == (1,)
    return opened.mode.startswith("I;16") or opened.format in _SIXTEEN_BITS


def _unknown(content: bytes) -> str:
    if not content:
        return "the file is empty, expected an image"
    if (pointer := what_pointer(content)) is not None:
        return f"the file {pointer}"
    return "the file is not an image of a known format (JPEG, PNG, WebP, GIF, BMP, TIFF); replace it or leave it out"
