"""Labelled data as a task sees them: keys, targets and a digest; the samples themselves only where needed."""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import xxhash

from recycle_cli.errors import DataError
from recycle_cli.keys import Bytes16, Label, Sample, Views, keys_of
from recycle_cli.tasks import Classification, Targets, Task
from recycle_cli.trunk.stream import Indices, windows

READ_WINDOW = 8192
NO_LABEL = -1
ONE_CLASS = Classification()
PROBES = 8
"""Samples kept for the parity check: few, since each costs a pass of the trunk; drawn over the whole data."""


@dataclass(frozen=True)
class Labelled:
    """n labelled samples: keys and digests (n, 16), and the targets that the task makes of labels from `names`.

    `known` (n,) tells which samples have a label at all; None for all of them. `samples` holds all of them where asked
    for, else nothing; `probes` always holds a few. `views`: of each augmented view the keys and digests (n, 16).
    """

    keys: Bytes16
    digests: Bytes16
    targets: Targets
    names: list[str]
    samples: list[Sample]
    probes: list[Sample]
    views: tuple[tuple[Bytes16, Bytes16], ...] = ()
    known: npt.NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def digest(self) -> str:
        """xxh3_128 of keys and labels in their order: two runs with equal digests trained on the same data."""
        names = "\0".join(self.names).encode()
        known = b"" if self.known is None else self.known.tobytes()
        return xxhash.xxh3_128_hexdigest(self.keys.tobytes() + self.targets.tobytes() + names + known)

    def labelled(self, members: Indices) -> Indices:
        """Those of the members that have a label."""
        return members if self.known is None else members[self.known[members]]

    def take(self, places: Indices) -> "Labelled":
        """Only the samples at these places, in this order."""
        samples = [self.samples[place] for place in places.tolist()] if self.samples else []
        taken = replace(
            self,
            keys=self.keys[places],
            digests=self.digests[places],
            samples=samples,
            views=tuple((keys[places], digests[places]) for keys, digests in self.views),
        )
        return taken.with_targets_of(self, places)

    def with_targets_of(self, other: "Labelled", places: Indices) -> "Labelled":
        """These samples with the labels that `other` has at these places."""
        known = None if other.known is None else other.known[places]
        return replace(self, targets=other.targets[places], names=other.names, known=known)


def take_all(data: Sequence[Labelled], places: Indices) -> list[Labelled]:
    """The same samples of each target's data, which have all but the labels in common."""
    first = data[0].take(places)
    return [first.with_targets_of(one, places) for one in data]


def read_labelled(
    corpus: Iterable[Sample],
    names: Sequence[str] | None = None,
    *,
    task: Task = ONE_CLASS,
    keep: bool = False,
    views: Views = (),
) -> Labelled:
    """Read all of a labelled corpus. `names` are the known classes; None finds them (and wants at least two).

    `views` make of a sample its augmented views, whose keys are then kept as well.

    Raises DataError where there is no record, or for a label that is not among the known classes.
    """
    return read_targets(corpus, {None: names}, task=task, keep=keep, views=views)[0]


def read_targets(
    corpus: Iterable[Sample],
    columns: Mapping[str | None, Sequence[str] | None],
    *,
    task: Task,
    keep: bool = False,
    views: Views = (),
) -> list[Labelled]:
    """As `read_labelled`, for several columns of labels at once: the same samples, each time with one column's labels.

    `columns`: the known classes of each; its name is None for the only label that a sample has.
    """
    targets = [_Targets(task, column, names) for column, names in columns.items()]
    count = 0
    keys: list[Bytes16] = []
    digests: list[Bytes16] = []
    samples: list[Sample] = []
    probes: list[Sample] = []
    seen: list[list[tuple[Bytes16, Bytes16]]] = [[] for _ in views]
    draw = random.Random(0)
    for window in windows(corpus, READ_WINDOW):
        keys.append(window.keys)
        digests.append(window.digests)
        samples += window.samples if keep else []
        for view, pairs in zip(views, seen, strict=True):
            pairs.append(keys_of([view(sample) for sample in window.samples]))
        for sample in window.samples:
            for target in targets:
                target.add(sample)
            count += 1
            _reservoir(probes, sample, count, draw)
    if not count:
        raise DataError("the data hold no record to train or evaluate on; check the file and --limit")
    view_keys = tuple((np.concatenate([k for k, _ in pairs]), np.concatenate([d for _, d in pairs])) for pairs in seen)
    shared = (np.concatenate(keys), np.concatenate(digests))
    return [Labelled(*shared, *target.finished(), samples, probes, view_keys, target.known()) for target in targets]


class _Targets:
    """The labels of one column as they are read, as codes in the order of their first appearance."""

    def __init__(self, task: Task, column: str | None, names: Sequence[str] | None) -> None:
        self.task, self.column, self.names = task, column, names
        self.known_names = None if names is None else set(names)
        self.codes: dict[Label, int] = {}
        self.found: list[int] = []

    def add(self, sample: Sample) -> None:
        """The next sample's label, if it has one."""
        label = sample.label if self.column is None else (sample.labels or {}).get(self.column)
        if label is None:
            self.found.append(NO_LABEL)
            return
        if label not in self.codes:
            self._check(label, sample)
            self.codes[label] = len(self.codes)
        self.found.append(self.codes[label])

    def finished(self) -> tuple[Targets, list[str]]:
        """A target for each sample, any where there is no label, and the classes in their order."""
        if max(self.found) == NO_LABEL:
            where = "; name their column" if self.column is None else f" in column {self.column!r}; name another"
            raise DataError(f"no record has a label{where} with --label-column")
        labels = list(self.codes)
        names = self.names
        if names is None:
            names = self.task.names_of(name for label in labels for name in self.task.classes_in(label))
        return self.task.targets(labels, names)[np.maximum(np.array(self.found), 0)], list(names)

    def known(self) -> npt.NDArray[np.bool_] | None:
        """Which samples (n,) have a label; None where all have one."""
        known = np.array(self.found) != NO_LABEL
        return None if known.all() else known

    def _check(self, label: Label, sample: Sample) -> None:
        """Raise DataError for a label of another form than the task's, and for a class that is not known."""
        classes = self.task.classes_in(label)
        if self.names is None or self.known_names is None:
            return
        if unknown := [name for name in classes if name not in self.known_names]:
            known = ", ".join(map(repr, self.names[:20]))
            raise DataError(
                f"label {unknown[0]!r} of record {sample.id} was not seen in training (classes: {known}); "
                "correct it, or train on data that have it"
            )


def _reservoir(kept: list[Sample], sample: Sample, count: int, draw: random.Random) -> None:
    """Algorithm R (Vitter 1985): each of `count` samples so far is kept with equal chance."""
    if len(kept) < PROBES:
        kept.append(sample)
    elif (place := draw.randrange(count)) < PROBES:
        kept[place] = sample
