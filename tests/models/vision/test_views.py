"""A view is drawn by image, augmentation and number alone: again and again the same, each other than the next."""

import io

import numpy as np
import pytest
from PIL import Image

from recycle_cli.errors import UsageError
from recycle_cli.keys import Sample, keys_of
from recycle_cli.models.vision.inputs import ImageInputs
from recycle_cli.models.vision.transforms import ImageTransform
from recycle_cli.models.vision.views import augmentation, view_of

TRANSFORM = ImageTransform((36,), (32, 32), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
ALL = "random-resized-crop,flip,color-jitter"


def sample(seed=0, side=40):
    ramp = np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(ramp).save(file, "PNG")
    return Sample(str(seed), {"image": file.getvalue()})


def pixels(*samples):
    return [prepared["pixel_values"] for prepared in ImageInputs(TRANSFORM).prepare(samples)]


@pytest.mark.parametrize("words", [ALL, "random-crop,flip", "flip(1)", "color-jitter(0.2)", "random-resized-crop(0.5)"])
def test_a_view_is_the_same_each_time_and_of_the_right_size(words):
    view = view_of(sample(), augmentation(words), 1)
    one, same = pixels(view, view)
    assert one.shape == (3, 32, 32)
    assert (one == same).all()
    assert not (one == pixels(sample())[0]).all()


def test_views_differ_by_number_and_by_image():
    steps = augmentation(ALL)
    one, two, other = pixels(view_of(sample(), steps, 1), view_of(sample(), steps, 2), view_of(sample(1), steps, 1))
    assert not (one == two).all()
    assert not (one == other).all()


def test_a_views_key_covers_image_augmentation_and_number():
    steps, spelt = augmentation(ALL), augmentation(" Random-Resized-Crop(0.08), flip(0.5),color-jitter(0.4) ")
    views = [
        sample(),
        view_of(sample(), steps, 1),
        view_of(sample(), steps, 2),
        view_of(sample(), augmentation("flip"), 1),
    ]
    keys, _ = keys_of([*views, view_of(sample(1), steps, 1)])
    assert len({key.tobytes() for key in keys}) == 5
    assert (keys_of([view_of(sample(), spelt, 1)])[0] == keys[1]).all()


def test_a_flip_mirrors_and_nothing_else():
    flipped, plain = pixels(view_of(sample(), augmentation("flip(1)"), 1), sample())
    assert (flipped == plain[:, :, ::-1]).all()


@pytest.mark.parametrize(
    "words", ["", "rotate", "flip,flip", "flip(2)", "random-crop,random-resized-crop", "color-jitter(0)", "flip(x)"]
)
def test_an_unknown_augmentation_is_refused(words):
    with pytest.raises(UsageError, match="--augment"):
        augmentation(words)
