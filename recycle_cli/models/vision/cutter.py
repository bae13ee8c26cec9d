"""The contract of a model that can be cut, whichever way its halves are found."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from torch import Tensor, nn

from recycle_cli.models.vision.points import CutPoint

Named = list[tuple[str, Tensor]]


class Cutter(Protocol):
    """A model with its cuts. A row is the one tensor that crosses at a cut, for one image."""

    @property
    def model(self) -> nn.Module:
        """The whole model."""

    @property
    def points(self) -> Sequence[CutPoint]:
        """The cuts in the order of computation."""

    @property
    def blocks(self) -> int:
        """How many places may be cuts."""

    @property
    def others(self) -> Mapping[str, tuple[int, int]]:
        """Names of places at which no cut is possible: their position, and the number of tensors that cross."""

    @property
    def states(self) -> Sequence[CutPoint]:
        """What `every` stands for: the state before the first block, if it is a cut, and the output of each block."""

    @property
    def state_0(self) -> CutPoint | None:
        """The state before the first block; None if it is no cut."""

    def resolve(self, cut: str) -> CutPoint | None:
        """The point that a cut names, None for the whole model. Raises UsageError if there is none."""

    def parameter_share(self, name: str) -> float:
        """Share of the model's parameters that lie before a cut."""

    def full(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) to logits (B, classes), in the mode the model is in."""

    def trunk(self, names: Sequence[str]) -> Callable[[Tensor], dict[str, Tensor]]:
        """A function from images to the rows at each cut, in one pass that ends at the deepest."""

    def head(self, name: str) -> Callable[[Tensor], Tensor]:
        """A function from the rows at a cut to logits."""

    def between(self, name: str, later: str) -> Callable[[Tensor], Tensor]:
        """A function from the rows at a cut to the rows at a later one."""

    def trunk_tensors(self, name: str) -> Named:
        """Named parameters and buffers that the trunk reads."""

    def head_tensors(self, name: str) -> Named:
        """Named parameters and buffers that the head alone uses."""

    def trunk_modules(self, name: str) -> list[nn.Module]:
        """The modules that the trunk alone calls."""

    def check(self, name: str) -> None:
        """Raise ModelError if training the head at a cut changed anything but the head."""
