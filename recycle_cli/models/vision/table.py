"""The cuts of an image model as a table: what they save, what they store."""

from collections.abc import Sequence
from typing import Any

from recycle_cli.models.vision.points import CutPoint

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}
SCALE_BYTES = 4


def layer_rows(points: Sequence[CutPoint], dtype: str) -> list[dict[str, Any]]:
    """A record a cut, in the order of computation: shares of FLOPs and parameters before it, shape, bytes an image."""
    return [
        {
            "cut": point.name,
            "flops_share": point.flops,
            "parameters_share": point.parameters,
            "shape": " x ".join(map(str, point.shape)),
            "bytes": bytes_an_image(point, dtype),
        }
        for point in points
    ]


def bytes_an_image(point: CutPoint, dtype: str) -> int:
    """Stored bytes of one image at a cut, keys aside; int8 has one scale for the image."""
    return point.numbers * BYTES[dtype] + (SCALE_BYTES if dtype == "int8" else 0)
