"""Forecast the time of the corpus from that of the sample, by padded tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recycle_cli.batches import Indices, shuffled


@dataclass(frozen=True)
class Line:
    """A linear model of a batch's seconds: a constant, and seconds for each padded token."""

    seconds_a_batch: float
    seconds_a_token: float

    def seconds(self, batches: float, tokens: float) -> float:
        """Seconds of `batches` batches with `tokens` padded tokens in all."""
        return self.seconds_a_batch * batches + self.seconds_a_token * tokens


def fit(tokens: Sequence[float], seconds: Sequence[float]) -> Line:
    """Fit a line to batches (n,) by least squares. Neither part is below zero, which only noise could cause."""
    mean_tokens, mean_seconds = float(np.mean(tokens)), float(np.mean(seconds))
    if np.ptp(tokens) == 0:
        return Line(0.0, mean_seconds / mean_tokens)
    slope, start = (float(number) for number in np.polyfit(np.asarray(tokens, float), np.asarray(seconds, float), 1))
    if start < 0:
        return Line(0.0, mean_seconds / mean_tokens)
    return Line(start, slope) if slope > 0 else Line(mean_seconds, 0.0)


@dataclass(frozen=True)
class Epoch:
    """The batches of one epoch and their padded tokens."""

    batches: float
    tokens: float


def padded(lengths: Indices, batches: Sequence[Indices]) -> list[int]:
    """Padded tokens of each batch."""
    return [len(members) * int(lengths[members].max()) for members in batches]


def epoch_of(lengths: Indices, records: int, tokens_share: float, batch_size: int, seed: int) -> Epoch:
    """Estimate an epoch over `records` records with lengths like these; `tokens_share` corrects their mean."""
    tokens = sum(padded(lengths, shuffled(lengths, batch_size, seed, 0)))
    return Epoch(records / batch_size, tokens * records / len(lengths) * tokens_share)


def pays_back_in(fill: float, epoch: float, other: float) -> int | None:
    """The first epoch after which filling and training from the store took less time than the other way, or None."""
    saved = other - epoch
    return int(fill // saved) + 1 if saved > 0 else None
