"""Places to cut an image model: their names, the rows there, and the place that a user's words mean."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from recycle_cli.errors import UsageError
from recycle_cli.models.cuts import quoted

WHOLE = "0"
"""The cut before everything: nothing is frozen, nothing is stored."""

_SHARE = re.compile(r"(\d+(?:\.\d+)?)%")
_LISTED = 12


@dataclass(frozen=True)
class CutPoint:
    """A place at which one tensor alone crosses.

    name     of the outermost module that ends there (`layer3`), else of the operation (`layer3.0.add`)
    aliases  other names of the same place (`layer3.1`, if it is the last of `layer3`)
    shape    of the tensor that crosses, for one image
    flops    share of the model's FLOPs that lie before it
    place    its position in the order of computation
    """

    name: str
    aliases: tuple[str, ...]
    shape: tuple[int, ...]
    flops: float
    place: int

    @property
    def numbers(self) -> int:
        """Values in the row of one image."""
        count = 1
        for side in self.shape:
            count *= side
        return count


def resolve_point(cut: str, points: Sequence[CutPoint], others: Mapping[str, tuple[int, int]]) -> CutPoint | None:
    """The point that a cut names: by module, by operation or by share of the FLOPs; None for `0`, the whole model.

    `others` maps names of places at which no cut is possible to their position and the number of tensors that cross.
    Raises UsageError for such a place, with the nearest valid cuts, and for a name that the model does not have.
    """
    text = cut.strip()
    if text == WHOLE:
        return None
    if share := _SHARE.fullmatch(text):
        return _by_share(cut, float(share[1]), points)
    for point in points:
        if text == point.name or text in point.aliases:
            return point
    if text in others:
        place, crossing = others[text]
        what = (
            f"{crossing} tensors cross there"
            if crossing != 1
            else "what crosses there is no tensor with one image a row"
        )
        raise UsageError(f"cut {cut!r}: {what}, expected one; the nearest valid cuts are {_nearest(place, points)}")
    listed = [point.name for point in points if "." not in point.name] or [point.name for point in points]
    more = ", ..." if len(listed) > _LISTED else ""
    raise UsageError(
        f"cut {quoted(cut)}: the model has no module of this name; expected a share such as 50%, 0 for the whole "
        f"model, or one of {', '.join(listed[:_LISTED])}{more} (`recycle layers` lists all {len(points)})"
    )


def _by_share(cut: str, percent: float, points: Sequence[CutPoint]) -> CutPoint | None:
    """Nearest by FLOPs; of equals the one that stores least, then the plainest name, then the first."""
    if percent > 100:
        raise UsageError(f"cut {quoted(cut)}: expected a share from 0% to 100%")
    if percent == 0:
        return None
    return min(
        points,
        key=lambda point: (
            round(abs(point.flops - percent / 100), 4),
            point.numbers,
            point.name.count("."),
            point.place,
        ),
    )


def _nearest(place: int, points: Sequence[CutPoint]) -> str:
    before = [point.name for point in points if point.place < place][-1:]
    after = [point.name for point in points if point.place > place][:1]
    return " and ".join(before + after)
