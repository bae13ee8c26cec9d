"""Files of every mode become upright 8-bit RGB; a file that cannot is one line."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from recycle_cli.errors import DataError
from recycle_cli.keys import Sample
from recycle_cli.models.vision.decoding import decode
from recycle_cli.models.vision.inputs import ImageInputs
from recycle_cli.models.vision.transforms import ImageTransform

TRANSFORM = ImageTransform((8,), (8, 8), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def written(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixel(content):
    return decode(content, "it").getpixel((0, 0))


def refusal(content):
    with pytest.raises(DataError) as caught:
        decode(content, "image 7")
    message = str(caught.value)
    assert message.startswith("image 7: ")
    assert "\n" not in message
    return message


def test_grey_palette_and_bilevel_are_repeated():
    assert pixel(written(Image.new("L", (4, 4), 100))) == (100, 100, 100)
    assert pixel(written(Image.new("1", (4, 4), 1))) == (255, 255, 255)
    assert pixel(written(Image.new("RGB", (4, 4), (1, 2, 3)).quantize(4))) == (1, 2, 3)


def test_transparency_is_laid_on_white():
    assert pixel(written(Image.new("RGBA", (4, 4), (200, 0, 0, 0)))) == (255, 255, 255)
    assert pixel(written(Image.new("RGBA", (4, 4), (200, 0, 0, 255)))) == (200, 0, 0)
    assert pixel(written(Image.new("LA", (4, 4), (0, 0)))) == (255, 255, 255)
    assert pixel(written(Image.new("P", (4, 4), 0), transparency=0)) == (255, 255, 255)


def test_16_bits_keep_their_upper_8():
    grey = np.full((4, 4), 200 * 256 + 7, dtype=np.uint16)
    assert pixel(written(Image.fromarray(grey))) == (200, 200, 200)
    assert pixel(written(Image.fromarray(grey), "TIFF")) == (200, 200, 200)


def test_16_bits_of_a_portable_graymap_are_scaled_by_its_largest_value():
    content = b"P5 2 2 1023\n" + np.array([0, 256, 512, 1023], dtype=">u2").tobytes()
    image = decode(content, "it")
    assert [image.getpixel((x, y))[0] for y in (0, 1) for x in (0, 1)] == [0, 64, 128, 255]


def tiff(values, **tags):
    """A TIFF of one strip, written by hand since Pillow does not write every kind."""
    bits, sign, white = tags.get("bits", 16), tags.get("sign", 1), tags.get("photometric", 1)
    content = values.tobytes() if isinstance(values, np.ndarray) else values
    entries = [(256, 4), (257, 4), (258, bits), (259, 1), (262, white), (273, 8), (277, 1), (278, 4)]
    entries += [(279, len(content)), (339, sign)]
    fields = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    directory = struct.pack("<H", len(entries)) + fields + struct.pack("<I", 0)
    return b"II*\0" + struct.pack("<I", 8 + len(content)) + content + directory


def test_a_tiff_of_16_bits_is_read_by_its_upper_8():
    assert pixel(tiff(np.full((4, 4), 200 * 256 + 7, dtype=np.uint16))) == (200, 200, 200)


@pytest.mark.parametrize(
    "content",
    [
        written(Image.fromarray(np.full((4, 4), 200, dtype=np.int32)), "TIFF"),
        tiff(np.full((4, 4), 200, dtype=np.int32), bits=32, sign=2),
        tiff(np.full((4, 4), 200, dtype=np.uint32), bits=32),
        tiff(np.full((4, 4), 200, dtype=np.int16), sign=2),
        tiff(np.full((4, 4), 200, dtype=np.uint16), photometric=0),
        tiff(bytes(24), bits=12),
    ],
)
def test_integers_whose_range_is_not_known_are_refused_and_not_clipped(content):
    assert Image.open(io.BytesIO(content)).mode.startswith("I")
    with pytest.raises(DataError, match=r"it: the image has integer pixels .* whose range is not known"):
        decode(content, "it")


def test_a_pointer_is_named_for_what_it_is():
    with pytest.raises(DataError, match=r"it: the file is a Git LFS pointer.*git lfs pull"):
        decode(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345678\n", "it")


def test_whatever_a_decoder_raises_is_a_damaged_image(monkeypatch):
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda image: [].pop(image))
    with pytest.raises(DataError, match="it: the image is damaged"):
        decode(written(Image.new("RGB", (4, 4))), "it")


def test_cmyk_is_converted():
    red, green, blue = pixel(written(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"))
    assert red > 200
    assert max(green, blue) < 60


def test_exif_orientation_is_applied():
    image = Image.new("RGB", (4, 2), "black")
    image.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned right by the viewer
    upright = decode(written(image, exif=exif), "it")
    assert upright.size == (2, 4)
    assert upright.getpixel((1, 0)) == (255, 255, 255)


def test_of_an_animation_the_first_frame_is_taken():
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    content = written(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert pixel(content) == (255, 0, 0)


def test_files_that_are_no_image_are_refused():
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    jpeg, png = written(Image.fromarray(noise), "JPEG"), written(Image.fromarray(noise))
    assert "is damaged (" in refusal(jpeg[: len(jpeg) // 2])
    assert "is damaged (" in refusal(png[: len(png) // 2])
    assert "not an image of a known format" in refusal(b"just some text in a file that is called .png")
    assert "the file is empty" in refusal(b"")
    assert "has 1 x 1 pixels, expected at least 2 x 2" in refusal(written(Image.new("RGB", (1, 1))))
    assert "floating-point" in refusal(written(Image.new("F", (4, 4), 0.5), "TIFF"))


@pytest.mark.parametrize("side", [9_500, 20_000])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(side):
    content = written(Image.new("1", (side, side)))
    assert len(content) < 100_000
    assert "pixels" in refusal(content)


def test_an_image_too_long_for_its_width_is_refused():
    sample = Sample("7", {"image": written(Image.new("L", (60_000, 2)))})
    transform = ImageTransform((256,), (224, 224), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    with pytest.raises(DataError, match="image 7: 60000 x 2 pixels are too long"):
        ImageInputs(transform).prepare([sample])


def test_a_batch_is_what_each_image_is():
    samples = [Sample(str(value), {"image": written(Image.new("L", (9, 12), value))}) for value in (0, 255)]
    inputs = ImageInputs(TRANSFORM)
    batch = inputs.collate(inputs.prepare(samples))
    assert batch["pixel_values"].shape == (2, 3, 8, 8)
    assert TRANSFORM.normalised(batch["pixel_values"])[:, 0, 0, 0].tolist() == [-1, 1]


def test_the_first_bad_image_of_a_batch_is_named():
    good = Sample("0", {"image": written(Image.new("L", (9, 9)))})
    with pytest.raises(DataError, match="image 1: "):
        ImageInputs(TRANSFORM).prepare([good, Sample("1", {"image": b"x"}), good])
