"""Images of noise as samples."""

import io

import torch
from PIL import Image

from recycle_cli.keys import Sample


def noise(count: int, height: int = 40, width: int = 50) -> list[Sample]:
    """So many different images, as PNG files."""
    found = []
    for number in range(count):
        draw = torch.Generator().manual_seed(number)
        pixels = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8, generator=draw)
        file = io.BytesIO()
        Image.fromarray(pixels.numpy()).save(file, "PNG")
        found.append(Sample(str(number), {"image": file.getvalue()}))
    return found
