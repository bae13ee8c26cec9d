"""Rows of several cuts as the states that a ladder reads: of texts as they are, of images on one grid."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name everybody knows it by

from recycle_cli.errors import UsageError

GRID = 7
"""The most places along a side of a map, which attention compares with each other."""


@dataclass(frozen=True)
class Layout:
    """How rows become states. `shapes`: of a row at each cut.

    A text's row is a vector, and is a row of the states too. An image is one row, a map or a list of patches: a map is
    averaged over the places of a grid that all of them fill, and each place is a row of the states. States that are
    less wide than the widest are filled up with zeros. Raises UsageError for lists of unequal length.
    """

    shapes: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        counts = {self._places(shape) for shape in self.shapes if len(shape) == 2}
        if len(counts) > 1 or (counts and any(len(shape) == 3 for shape in self.shapes)):
            raise UsageError(
                f"--head ladder: the rows of the cuts are {', '.join(map(str, self.shapes))}, which cannot be read "
                "beside each other; choose others with --cut"
            )

    @cached_property
    def width(self) -> int:
        """The width of a row of the states."""
        return max(channels(shape) for shape in self.shapes)

    @cached_property
    def side(self) -> int:
        """Places along a side of the grid; 0 if there are no maps."""
        sides = [side for shape in self.shapes if len(shape) == 3 for side in _sides(shape)]
        return min(GRID, *sides) if sides else 0

    @cached_property
    def places(self) -> int:
        """Rows of the states of an image; 0 for texts, whose own they are."""
        if all(len(shape) == 1 for shape in self.shapes):
            return 0
        return self.side**2 or max(self._places(shape) for shape in self.shapes)

    def states(self, rows: Sequence[Tensor], lengths: Tensor) -> tuple[list[Tensor], Tensor]:
        """Rows (B, L, *shape) of each cut, and lengths (B,), to states (B, L', width) and their lengths (B,)."""
        if not self.places:
            return [self._wide(own) for own in rows], lengths
        each = [self._wide(self._placed(own.flatten(0, 1))) for own in rows]
        return each, lengths.new_full((len(each[0]),), self.places)

    def _placed(self, images: Tensor) -> Tensor:
        """Images (B, *shape) to their places (B, places, channels)."""
        if images.dim() == 4:
            maps = images.permute(0, 3, 1, 2) if is_channels_last(tuple(images.shape[1:])) else images
            return F.adaptive_avg_pool2d(maps, self.side).flatten(2).transpose(1, 2)
        return images if images.dim() == 3 else images[:, None].expand(-1, self.places, -1)

    def _wide(self, rows: Tensor) -> Tensor:
        return F.pad(rows, (0, self.width - rows.shape[-1])) if rows.shape[-1] < self.width else rows

    @staticmethod
    def _places(shape: tuple[int, ...]) -> int:
        return prod(shape[:-1])


def is_channels_last(shape: tuple[int, ...]) -> bool:
    """Whether a map has its channels behind its sides, as Swin's have: its first two axes are the equal ones."""
    return shape[0] == shape[1] != shape[2]


def channels(shape: tuple[int, ...]) -> int:
    """The width of a row of this shape: a vector's, or the channels of a map or of a list of patches."""
    return shape[0] if len(shape) == 3 and not is_channels_last(shape) else shape[-1]


def _sides(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[:2] if is_channels_last(shape) else shape[1:]
