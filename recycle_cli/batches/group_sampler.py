"""Batches for learning from groups: each holds several samples of a group, and as many groups as fit."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heappush
from itertools import groupby, pairwise
from operator import itemgetter

import numpy as np

from recycle_cli.batches.sampler import Indices


@dataclass(frozen=True)
class Grouped:
    """Batches in which samples meet others of their group. `groups` (n,): the group of each sample; `group_samples`:
    samples of a group that come into a batch together."""

    batch_size: int
    seed: int
    groups: Indices
    group_samples: int

    def batches(self, lengths: Indices, epoch: int) -> list[Indices]:
        """Every sample once, whatever its length."""
        return grouped(self.groups, self.batch_size, self.group_samples, self.seed, epoch)

    def among(self, members: Indices) -> "Grouped":
        """The same with the groups of these samples."""
        return replace(self, groups=self.groups[members])


def grouped(groups: Indices, batch_size: int, group_samples: int, seed: int, epoch: int) -> list[Indices]:
    """The batches of one epoch in which samples meet others of their group and of other groups; every sample once.

    Each group is shuffled and divided into clusters of `group_samples` (the last holds the rest; a single sample joins
    the cluster before), which are spread over all batches, so that a batch holds as many groups as it can. Batches
    have at most `batch_size` samples, and are hardly more than needed. The same arguments give the same batches.
    """
    rng = np.random.default_rng([seed, epoch])
    clusters = _clusters(groups, group_samples, rng)
    count = math.ceil(len(groups) / batch_size)
    while (batches := _spread(clusters, count, batch_size, rng)) is None:
        count = min(count + 1 + count // 50, sum(map(len, clusters)))
    return [np.concatenate(batches[place]) for place in rng.permutation(count).tolist()]


def met_share(batches: Sequence[Indices], groups: Indices) -> float:
    """Of the samples in groups of several, the share whose batch holds another of their group and one of another
    group. `groups` (n,): the group of each sample."""
    sizes = np.bincount(groups)
    held = (np.unique(groups[batch], return_counts=True)[1] for batch in batches)
    met = sum(int(counts[counts > 1].sum()) for counts in held if len(counts) > 1)
    return met / max(1, int(sizes[sizes > 1].sum()))


def _clusters(groups: Indices, group_samples: int, rng: np.random.Generator) -> list[list[Indices]]:
    """The clusters of each group, groups and samples in a random order."""
    order = rng.permutation(len(groups))
    order = order[np.argsort(groups[order], kind="stable")]
    ends = np.cumsum(np.unique(groups, return_counts=True)[1])
    apart = np.split(order, ends)[:-1]
    clusters: list[list[Indices]] = []
    for place in rng.permutation(len(apart)).tolist():
        samples = apart[place]
        firsts = range(0, max(1, len(samples) - 1), group_samples)
        clusters.append([samples[first:end] for first, end in pairwise([*firsts, len(samples)])])
    return clusters


def _spread(
    clusters: Sequence[Sequence[Indices]], count: int, batch_size: int, rng: np.random.Generator
) -> list[list[Indices]] | None:
    """Spread the clusters over `count` batches: each goes to the emptiest batch without its group, or if these are full
    to the emptiest of all. None if a batch would hold more than `batch_size` samples, unless one cluster does alone."""
    # Small clusters last, to fill gaps, and after all others a group that comes into every batch anyway.
    turns = [(group, cluster) for group, own in enumerate(clusters) for cluster in own]
    turns.sort(key=lambda turn: (len(clusters[turn[0]]) > count, -len(turn[1])))
    draws = iter(rng.random(count + len(turns)).tolist())
    batches: list[list[Indices]] = [[] for _ in range(count)]
    having: list[set[int]] = [set() for _ in clusters]
    emptiest = [(0, next(draws), place) for place in range(count)]
    heapify(emptiest)
    for group, run in groupby(turns, key=itemgetter(0)):
        aside: list[tuple[int, float, int]] = []
        for _, cluster in run:
            while emptiest and emptiest[0][2] in having[group]:
                aside.append(heappop(emptiest))
            if not emptiest or emptiest[0][0] + len(cluster) > batch_size:
                _put_back(emptiest, aside)
                having[group].clear()
            filled, _, place = heappop(emptiest)
            if filled and filled + len(cluster) > batch_size:
                return None
            batches[place].append(cluster)
            having[group].add(place)
            aside.append((filled + len(cluster), next(draws), place))
        _put_back(emptiest, aside)
    return batches


def _put_back(heap: list[tuple[int, float, int]], entries: list[tuple[int, float, int]]) -> None:
    while entries:
        heappush(heap, entries.pop())
