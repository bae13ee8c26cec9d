"""Labelled data as a training sees them: keys, targets and a digest; the samples themselves only if needed."""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import numpy.typing as npt
import xxhash

from recycle_cli.batches import Indices
from recycle_cli.corpus import Example, Views
from recycle_cli.errors import DataError
from recycle_cli.keys import Bytes16, Sample, keys_of
from recycle_cli.models import OpenPreprocessor
from recycle_cli.reports import Bar
from recycle_cli.tasks import Encoded, Encoder, Targets, Task
from recycle_cli.trunk import PROBES, Keys

READ_AT_ONCE = 8192
"""Examples that are hashed together."""


@dataclass(frozen=True)
class LabelledData:
    """n samples with a target each: what is kept of a corpus for a training.

    keys, digests  (n, 16)
    targets        what the task makes of the labels
    names          the classes or groups, in their order; none for labels that are no names
    samples        all samples if asked for, else none
    probes         a few samples, drawn over all the data, for the parity check
    views          keys and digests (n, 16) of each augmented view
    known          the samples (n,) that have a label; None for all of them
    parents        the example (n,) that each sample is of; None if every example has one sample
    """

    keys: Bytes16
    digests: Bytes16
    targets: Targets
    names: list[str]
    samples: list[Sample]
    probes: list[Sample]
    views: tuple[Keys, ...] = ()
    known: npt.NDArray[np.bool_] | None = None
    parents: Indices | None = None

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def digest(self) -> str:
        """xxh3_128 of keys and labels in their order: two runs with equal digests trained on the same data."""
        names = "\0".join(self.names).encode()
        known = b"" if self.known is None else self.known.tobytes()
        return xxhash.xxh3_128_hexdigest(self.keys.tobytes() + self.targets.tobytes() + names + known)

    @property
    def labelled_samples(self) -> Indices:
        """The places of the samples that have a label."""
        return self.labelled(np.arange(len(self)))

    @property
    def contents(self) -> list[Keys]:
        """Keys and digests of the samples, and of each of their views."""
        return [(self.keys, self.digests), *self.views]

    def labelled(self, members: Indices) -> Indices:
        """Those of the members that have a label."""
        return members if self.known is None else members[self.known[members]]

    def whole(self, mask: npt.NDArray[np.bool_]) -> Indices:
        """The places of the samples whose example has all of its samples in the mask (n,)."""
        if self.parents is None:
            return np.flatnonzero(mask)
        broken = np.unique(self.parents[~mask])
        return np.flatnonzero(~np.isin(self.parents, broken))

    def take(self, places: Indices) -> "LabelledData":
        """Only the samples at these places, in this order."""
        taken = replace(
            self,
            keys=self.keys[places],
            digests=self.digests[places],
            samples=[self.samples[place] for place in places.tolist()] if self.samples else [],
            views=tuple((keys[places], digests[places]) for keys, digests in self.views),
            parents=None if self.parents is None else self.parents[places],
        )
        return taken.with_targets_of(self, places)

    def with_targets_of(self, other: "LabelledData", places: Indices) -> "LabelledData":
        """These samples with the labels that `other` has at these places."""
        known = None if other.known is None else other.known[places]
        return replace(self, targets=other.targets.take(places), names=other.names, known=known)


def take_all(data: Sequence[LabelledData], places: Indices) -> list[LabelledData]:
    """The same samples of the data of each label column, which have all but the labels in common."""
    first = data[0].take(places)
    return [first.with_targets_of(one, places) for one in data]


def read_labelled(
    corpus: Iterable[Example],
    columns: Mapping[str | None, Encoder],
    *,
    keep: bool = False,
    views: Views = (),
    progress: Bar = Bar(),  # noqa: B008 - it shows nothing and keeps nothing
) -> list[LabelledData]:
    """Read all of a labelled corpus: the same samples for each column of labels, each time with that column's.

    columns  an encoder for each column of labels; the column is None for the only label that an example has
    keep     keep the samples as well
    views    functions that make the augmented views of a sample, whose keys are then kept, too

    Raises DataError if there is no record, no label in a column, or a label that an encoder refuses.
    """
    reader = _Reader(keep, views)
    for examples in _in_parts(corpus):
        reader.add(examples)
        progress.update(len(examples))
        for example in examples:
            for column, encoder in columns.items():
                encoder.add(example, example.label_in(column))
    if not reader.count:
        raise DataError("the data hold no record to train or evaluate on; check the file and --limit")
    found = {column: encoder.finish() for column, encoder in columns.items()}
    for column, encoded in found.items():
        if encoded.known is not None and not encoded.known.any():
            where = "; name their column" if column is None else f" in column {column!r}; name another"
            raise DataError(f"no record has a label{where} with --label-column")
    return [reader.finish(encoded) for encoded in found.values()]


def read_one(
    corpus: Iterable[Example], task: Task, preprocessor: OpenPreprocessor, names: Sequence[str] | None = None
) -> LabelledData:
    """Read a corpus with a single label column, samples included. `names`: the known classes; None finds them."""
    (found,) = read_labelled(corpus, {None: task.encoder(names, preprocessor)}, keep=True)
    return found


class _Reader:
    """Gathers what is kept of the samples."""

    def __init__(self, keep: bool, views: Views) -> None:
        self.count = 0
        self._keep, self._views = keep, views
        self._keys: list[Keys] = []
        self._samples: list[Sample] = []
        self._probes: list[Sample] = []
        self._seen: list[list[Keys]] = [[] for _ in views]
        self._sizes: list[Indices] = []
        self._draw = random.Random(0)

    def add(self, examples: Sequence[Example]) -> None:
        """The next examples."""
        samples = [sample for example in examples for sample in example.samples]
        self._keys.append(keys_of(samples))
        self._samples += samples if self._keep else []
        self._sizes.append(np.array([len(example.samples) for example in examples], dtype=np.int64))
        for view, pairs in zip(self._views, self._seen, strict=True):
            pairs.append(keys_of([view(sample) for sample in samples]))
        for sample in samples:
            self.count += 1
            self._reservoir(sample)

    def finish(self, encoded: Encoded) -> LabelledData:
        """The data with these targets."""
        keys, digests = _joined(self._keys)
        sizes = np.concatenate(self._sizes)
        return LabelledData(
            keys,
            digests,
            encoded.targets,
            encoded.names,
            self._samples,
            self._probes,
            tuple(map(_joined, self._seen)),
            encoded.known,
            None if (sizes == 1).all() else np.repeat(np.arange(len(sizes)), sizes),
        )

    def _reservoir(self, sample: Sample) -> None:
        """Algorithm R (Vitter 1985): each of the samples so far is kept with equal chance."""
        if len(self._probes) < PROBES:
            self._probes.append(sample)
        elif (place := self._draw.randrange(self.count)) < PROBES:
            self._probes[place] = sample


def _in_parts(corpus: Iterable[Example]) -> Iterator[list[Example]]:
    stream = iter(corpus)
    while part := list(islice(stream, READ_AT_ONCE)):
        yield part


def _joined(pairs: Sequence[Keys]) -> Keys:
    return np.concatenate([keys for keys, _ in pairs]), np.concatenate([digests for _, digests in pairs])
