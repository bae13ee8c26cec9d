"""Labels to targets, as a corpus is read: names become indices once all names are known."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from recycle_cli.corpus import Example
from recycle_cli.errors import DataError
from recycle_cli.tasks.targets import Targets

NO_LABEL = -1


@dataclass(frozen=True)
class Encoded:
    """The targets of all samples that were added. `known` (n,): the samples that have a label; None for all of them."""

    targets: Targets
    names: list[str]
    known: npt.NDArray[np.bool_] | None = None


class Encoder(Protocol):
    """Turns labels into targets: one example after another, since a corpus is streamed."""

    def add(self, example: Example, label: Any) -> None:
        """Add a target for each sample of the example; `label` None if it has none. Raises DataError for a label that
        the task cannot use, UnknownLabel for a class that is not one of the known ones."""

    def finish(self) -> Encoded:
        """The targets of all that was added, in its order. Raises DataError if the labels are too few to learn from."""


class UnknownLabel(DataError):  # noqa: N818 - it says which label, not that there is an error
    """A label that training has not seen, such as a class of another name. `reason`: why it cannot be scored."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Naming(Protocol):
    """How a task whose labels are names of classes or groups turns them into targets."""

    def names_of(self, found: Iterable[str]) -> list[str]:
        """The classes, found in the labels, in their order. Raises DataError for too few."""

    def classes_in(self, label: Any) -> tuple[str, ...]:
        """The names of classes in a label. Raises DataError for a label of another form."""

    def targets(self, labels: Sequence[Any], names: Sequence[str]) -> npt.NDArray[Any]:
        """A target for each label (n, ...); every class in it is one of `names`."""


class LabelEncoder:
    """Encodes labels that are names, or sets of names. `names`: the known classes; None finds them.

    Labels are kept as codes in the order of their first appearance, so that memory grows by a number a sample.
    """

    def __init__(self, naming: Naming, names: Sequence[str] | None) -> None:
        self._naming, self._names = naming, names
        self._known = None if names is None else set(names)
        self._codes: dict[Any, int] = {}
        self._found: list[int] = []

    def add(self, example: Example, label: Any) -> None:
        """Add the label's code, once for each sample of the example."""
        if label is not None and label not in self._codes:
            self._check(label, example)
            self._codes[label] = len(self._codes)
        code = NO_LABEL if label is None else self._codes[label]
        self._found += [code] * len(example.samples)

    def finish(self) -> Encoded:
        """The targets and the classes in their order; the target of a sample without a label means nothing."""
        labels, names = list(self._codes), self._names
        if not labels:
            nothing = np.zeros(len(self._found), dtype=np.int64)
            return Encoded(Targets(nothing), list(names or ()), np.zeros(len(self._found), dtype=bool))
        if names is None:
            names = self._naming.names_of(name for label in labels for name in self._naming.classes_in(label))
        codes = np.array(self._found, dtype=np.int64)
        known = codes != NO_LABEL
        targets = self._naming.targets(labels, names)[np.maximum(codes, 0)]
        return Encoded(Targets(targets), list(names), None if known.all() else known)

    def _check(self, label: Any, example: Example) -> None:
        classes = self._naming.classes_in(label)
        if self._names is None or self._known is None:
            return
        if unknown := [name for name in classes if name not in self._known]:
            known = ", ".join(map(repr, self._names[:20]))
            raise UnknownLabel(
                f"the label {unknown[0]!r} is not one of the run's classes ({', '.join(self._names)})",
                f"{example.named}: the label {unknown[0]!r} was not seen in training (classes: {known}); correct it, "
                "or train on data that have it",
            )
