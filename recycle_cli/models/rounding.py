"""Whether two results of one model differ by rounding alone."""

from torch import Tensor

TOLERANCE = 2e-5
"""Largest float32 difference, as a share of the largest value compared, that is rounding and not an error."""

NOUGHT = 0.05
"""Share of the rows' largest value that outputs are compared by at least. The only output of a regression may lie as
near to zero as it likes, and its rounding is that of the sum that it is."""


def close(one: Tensor, other: Tensor, tolerance: float, rows: Tensor | None = None) -> bool:
    """Whether they differ by no more than this share of the largest value; `rows`: what they are outputs of, if so."""
    return difference(one, other, rows) <= tolerance


def difference(one: Tensor, other: Tensor, rows: Tensor | None = None) -> float:
    """Largest difference as a share of the largest value, which for the outputs of `rows` is no less than NOUGHT of
    theirs."""
    largest = float(one.abs().max())
    if rows is not None:
        largest = max(largest, NOUGHT * float(rows.abs().max()))
    return float((one - other).abs().max()) / max(largest, 1e-30)
