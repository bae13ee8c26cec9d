"""Which rows of one tokenizer belong to which rows of another, and rows gathered accordingly."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Ranges = npt.NDArray[np.int64]
"""For each row of one model the first and the last + 1 row of another (rows, 2)."""


def one_by_one(rows: int) -> Ranges:
    """Each row is that of the same number."""
    return np.stack((np.arange(rows), np.arange(rows) + 1), axis=1)


def matching(own: npt.NDArray[np.int64], theirs: npt.NDArray[np.int64]) -> Ranges:
    """The other tokenizer's rows for each of ours, by the places of both in the text (see `TextPreprocessor.spans`).

    A piece has the rows whose pieces share a character with it. Special tokens have those of the other side, in their
    order, if both have as many. A row that nothing belongs to has all of them.
    """
    ranges = np.tile(np.array([0, len(theirs)], dtype=np.int64), (len(own), 1))
    for field in (0, 1):
        mine, rows = _pieces(own, field), _pieces(theirs, field)
        first = np.searchsorted(theirs[rows, 2], own[mine, 1], side="right")
        last = np.searchsorted(theirs[rows, 1], own[mine, 2], side="left")
        met = first < last
        ranges[mine[met]] = np.stack((rows[first[met]], rows[last[met] - 1] + 1), axis=1)
    mine, rows = np.flatnonzero(own[:, 0] < 0), np.flatnonzero(theirs[:, 0] < 0)
    if len(mine) == len(rows):
        ranges[mine] = np.stack((rows, rows + 1), axis=1)
    return ranges


def _pieces(spans: npt.NDArray[np.int64], field: int) -> npt.NDArray[np.int64]:
    """The rows whose pieces lie in a field and hold a character."""
    return np.flatnonzero((spans[:, 0] == field) & (spans[:, 1] < spans[:, 2]))


def means(values: Tensor, ranges: Ranges) -> Tensor:
    """The mean of the values (n, width) in each range: (ranges, width). A range of one row gives that row itself."""
    counts = ranges[:, 1] - ranges[:, 0]
    into = np.repeat(np.arange(len(ranges)), counts)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    taken = values[torch.from_numpy(np.repeat(ranges[:, 0], counts) + within)]
    sums = values.new_zeros(len(ranges), values.shape[1]).index_add_(0, torch.from_numpy(into), taken)
    return sums / torch.from_numpy(counts)[:, None]
