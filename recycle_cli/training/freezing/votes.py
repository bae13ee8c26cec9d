"""Several processes decide which layers freeze, each by the gradients of its own samples, and vote.

The study on adaptive freezing in data-parallel training names this as future work. With m_r samples on rank r in an
interval, its vote weighs w_r = m_r / sum of all m (`weighted`), or w_r = m_r s_r / sum of all m s (`weighted-labels`),
where s_r = 1 - 1/2 sum over classes c of |p_r(c) - p(c)|: p_r is the distribution of the labels on rank r, p that of
all. A layer freezes if ranks of more than half of the weight have chosen it.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torch._C._distributed_c10d import GradBucket

from recycle_cli.runtime.ranks import Ranks
from recycle_cli.training.freezing.gradient_sums import GradientSums
from recycle_cli.training.freezing.layers import Layers
from recycle_cli.training.freezing.rules import Watcher, changes_of

Counts = npt.NDArray[np.float64]


class Votes:
    """The votes of the ranks at the end of each interval.

    classes  how many there are, if labels weigh; 0 if they do not
    """

    def __init__(self, ranks: Ranks, layers: Layers, watcher: Watcher, classes: int) -> None:
        self._ranks, self._watcher, self._classes = ranks, watcher, classes
        self._sums = GradientSums(layers, watcher.norm)
        self._names = {id(one): name for own in layers.weights for name, one in own.items()}
        self._step: dict[str, Tensor] = {}
        self._own = self._all = 0
        self._labels = np.zeros(max(1, classes))
        self._norms: list[float] | None = None

    def seen(self, bucket: GradBucket) -> None:
        """Gradients of this rank's samples alone, before they are summed with those of the others."""
        for weight, gradient in zip(bucket.parameters(), bucket.gradients(), strict=True):
            if (name := self._names.get(id(weight))) is not None:
                self._step[name] = gradient.clone()

    def learnt(self, labels: npt.NDArray[np.int64], samples: int) -> None:
        """This rank has learnt from samples with these labels, all ranks together from so many."""
        self._own, self._all = self._own + len(labels), self._all + samples
        self._labels += np.bincount(labels, minlength=len(self._labels)) if self._classes else len(labels)

    def end_step(self, weight: float) -> None:
        """Add the gradients of a step, of losses that weigh so much on all ranks together."""
        if self._own:
            self._sums.add(weight * self._own / self._all, gradients=self._step)
        self._step, self._own, self._all = {}, 0, 0

    def chosen(self, frozen: frozenset[int]) -> tuple[list[int], list[list[int]], list[float]]:
        """At the end of an interval: the layers that freeze, those that each rank has chosen, and what the ranks weigh.

        The first interval only records, also after a resume.
        """
        before, norms = self._norms, self._sums.norms()
        own: frozenset[int] = frozenset()
        if before is not None:
            own = self._watcher.newly_frozen(changes_of(before, norms), frozen)
        self._norms = norms
        layers = len(norms)
        vote = [*(int(layer in own) for layer in range(layers)), *map(int, self._labels)]
        found = np.array(self._ranks.numbers(vote), dtype=np.float64)
        weights = weights_of(found[:, layers:])
        self._sums.reset()
        self._labels[:] = 0
        ballots = [np.flatnonzero(one).tolist() for one in found[:, :layers]]
        return elected(ballots, weights), ballots, weights

    def drop(self, names: Iterable[str]) -> None:
        """Forget weights that are frozen."""
        self._sums.drop(names)


def weights_of(labels: Counts) -> list[float]:
    """What each rank's vote weighs, by the labels of its samples: counts (ranks, classes); with one class all samples
    count alike."""
    samples = labels.sum(axis=1)
    own = labels / np.maximum(samples, 1)[:, None]
    near = 1 - np.abs(own - labels.sum(axis=0) / max(1, labels.sum())).sum(axis=1) / 2
    weights = samples * near
    return [float(one) for one in weights / weights.sum()] if weights.sum() else [1 / len(labels)] * len(labels)


def elected(ballots: Sequence[Sequence[int]], weights: Sequence[float]) -> list[int]:
    """The layers that ranks of more than half of the weight have chosen."""
    share: dict[int, float] = {}
    for layers, weight in zip(ballots, weights, strict=True):
        for layer in layers:
            share[layer] = share.get(layer, 0.0) + weight
    return sorted(layer for layer, one in share.items() if one > 1 / 2)
