"""Draws `shapes/`: small pictures of circles, squares and triangles, one folder a class.

`python sample_data/make_images.py`. The same seed draws the same pixels. Position, size, angle and colours vary;
the outline alone tells the class.
"""

import math
import random
import sys
from pathlib import Path

from PIL import Image, ImageDraw

SEED = 5
SIDE = 48
SCALE = 4
"""Drawn larger and reduced, for smooth edges."""

CORNERS = {"circle": 64, "square": 4, "triangle": 3}
SPLITS = {"train": 40, "val": 20}


def picture(shape: str, draw: random.Random) -> Image.Image:
    """One shape on a background that runs from one colour to another."""
    side = SIDE * SCALE
    one, other, fill = (tuple(draw.randrange(256) for _ in range(3)) for _ in range(3))
    while sum(abs(a - b) for a, b in zip(fill, one, strict=True)) < 150:
        fill = tuple(draw.randrange(256) for _ in range(3))
    ramp = Image.linear_gradient("L").resize((side, side)).rotate(90 * draw.randrange(4))
    # A quarter of the ramp, so that the second colour tints the background and does not hide the shape.
    image = Image.composite(
        Image.new("RGB", ramp.size, other), Image.new("RGB", ramp.size, one), ramp.point(lambda v: v // 4)
    )
    radius = side * draw.uniform(0.18, 0.34)
    x, y = (draw.uniform(radius, side - radius) for _ in range(2))
    turn, corners = draw.uniform(0, 2 * math.pi), CORNERS[shape]
    angles = [turn + 2 * math.pi * corner / corners for corner in range(corners)]
    outline = [(x + radius * math.cos(angle), y + radius * math.sin(angle)) for angle in angles]
    ImageDraw.Draw(image).polygon(outline, fill=fill)
    return image.resize((SIDE, SIDE), Image.Resampling.BOX).quantize(48).convert("P")


def main(root: Path) -> None:
    """Write all pictures below `root`."""
    draw = random.Random(SEED)
    for split, count in SPLITS.items():
        for shape in CORNERS:
            folder = root / split / shape
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                picture(shape, draw).save(folder / f"{number:02d}.png", optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "shapes")
