"""Labelled data as a task sees them: keys, class indices and a digest; the samples themselves only where needed."""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import xxhash

from recycle_cli.errors import DataError
from recycle_cli.keys import Bytes16, Sample, keys_of
from recycle_cli.pipeline import windows
from recycle_cli.tasks.text_classification import class_names

READ_WINDOW = 8192
PROBES = 8
"""Samples kept for the parity check: few, since each costs a pass of the trunk; drawn over the whole data."""


@dataclass(frozen=True)
class Labelled:
    """n labelled samples: keys and digests (n, 16), targets (n,) as indices into `names`.

    `samples` holds all of them where asked for, else nothing; `probes` always holds a few. `views`: of each augmented
    view the keys and digests (n, 16).
    """

    keys: Bytes16
    digests: Bytes16
    targets: npt.NDArray[np.int64]
    names: list[str]
    samples: list[Sample]
    probes: list[Sample]
    views: tuple[tuple[Bytes16, Bytes16], ...] = ()

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def digest(self) -> str:
        """xxh3_128 of keys and labels in their order: two runs with equal digests trained on the same data."""
        names = "\0".join(self.names).encode()
        return xxhash.xxh3_128_hexdigest(self.keys.tobytes() + self.targets.tobytes() + names)

    def take(self, places: npt.NDArray[np.int64]) -> "Labelled":
        """Only the samples at these places, in this order."""
        samples = [self.samples[place] for place in places.tolist()] if self.samples else []
        return replace(
            self,
            keys=self.keys[places],
            digests=self.digests[places],
            targets=self.targets[places],
            samples=samples,
            views=tuple((keys[places], digests[places]) for keys, digests in self.views),
        )


def read_labelled(
    corpus: Iterable[Sample],
    names: Sequence[str] | None = None,
    *,
    keep: bool = False,
    views: Sequence[Callable[[Sample], Sample]] = (),
) -> Labelled:
    """Read all of a labelled corpus. `names` are the known classes; None finds them (and wants at least two).

    `views` make of a sample its augmented views, whose keys are then kept as well.

    Raises DataError where there is no record, or for a label that is not among the known classes.
    """
    codes: dict[str, int] = {name: code for code, name in enumerate(names or ())}
    found: list[int] = []
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
            found.append(_code(sample, codes, fixed=names is not None))
            _reservoir(probes, sample, len(found), draw)
    if not found:
        raise DataError("the data hold no record to train or evaluate on; check the file and --limit")
    ordered = list(names) if names is not None else class_names(list(codes))
    ranks = np.array([ordered.index(name) for name in codes], dtype=np.int64)
    targets = ranks[np.array(found, dtype=np.int64)]
    all_keys = np.concatenate(keys)
    view_keys = tuple((np.concatenate([k for k, _ in pairs]), np.concatenate([d for _, d in pairs])) for pairs in seen)
    return Labelled(all_keys, np.concatenate(digests), targets, ordered, samples, probes, view_keys)


def _code(sample: Sample, codes: dict[str, int], *, fixed: bool) -> int:
    label = str(sample.label)
    if label in codes:
        return codes[label]
    if fixed:
        known = ", ".join(map(repr, list(codes)[:20]))
        raise DataError(
            f"label {label!r} of record {sample.id} was not seen in training (classes: {known}); "
            "correct it, or train on data that have it"
        )
    codes[label] = len(codes)
    return codes[label]


def _reservoir(kept: list[Sample], sample: Sample, count: int, draw: random.Random) -> None:
    """Algorithm R (Vitter 1985): each of `count` samples so far is kept with equal chance."""
    if len(kept) < PROBES:
        kept.append(sample)
    elif (place := draw.randrange(count)) < PROBES:
        kept[place] = sample
