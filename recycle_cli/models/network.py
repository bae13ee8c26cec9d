"""A model of any modality as the verbs use it: loaded by name, split at cuts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from recycle_cli.models.pooling import pooling
from recycle_cli.models.split_model import SplitModel

BASE = "base"
"""The folder in a RUN that holds the checkpoint of a model which is more than that checkpoint."""


class AnyLoaded(Protocol):
    """A loaded model of any modality."""

    @property
    def name(self) -> str:
        """The name or folder it was loaded by."""

    @property
    def model(self) -> Any:
        """The module with its task layer."""

    @property
    def labels(self) -> tuple[str, ...]:
        """A name for each output, in their order."""

    @property
    def missing(self) -> frozenset[str]:
        """Names of the parameters that the checkpoint does not have: a new task layer."""

    @property
    def library(self) -> str:
        """The library whose checkpoint `save` writes."""

    @property
    def loads_with(self) -> str:
        """The call that loads such a checkpoint without us."""

    def save(self, folder: Path, max_length: int | None) -> None:
        """Write the checkpoint; `max_length` is the number of tokens that a text is cut to."""


@dataclass(frozen=True)
class Network:
    """A loaded model that can be split.

    split       (cuts, stored dtype) -> its halves; at the cut 0 the whole model trains. Raises UsageError for a cut
                that it does not have
    at_states   the same for cuts whose rows are stored: 0 is the state before the first block, and `every`, `every:2`
                and lists with commas name several; None if the model has no such state and no such names
    resolve     (cut, its halves) -> the cut's canonical name
    provenance  fields that a store keeps so that the model is found again
    """

    loaded: AnyLoaded
    split: Callable[[Sequence[str], str], SplitModel]
    resolve: Callable[[str, SplitModel], str]
    provenance: Mapping[str, str] = field(default_factory=dict)
    at_states: Callable[[Sequence[str], str], SplitModel] | None = None

    def stored(self, cuts: Sequence[str], dtype: str, poolings: Sequence[str] = ()) -> SplitModel:
        """The halves at cuts whose rows are stored; with `poolings` the trunk pools them."""
        split = (self.at_states or self.split)(cuts, dtype)
        return pooling(split, poolings) if poolings else split
