"""Modules that compute nothing: they return blanks of the right shape, or rows that were stored."""

from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor, nn

from recycle_cli.models.forwards import computing

PROBE_IMAGES = 3
"""Images in the pass that watches the modules: no other axis of a usual output has this size by chance."""


def returning(module: nn.Module, output: Any) -> AbstractContextManager[None]:
    """Let the module compute nothing and return `output` inside a block."""
    return computing(module, lambda usual: lambda *args, **kwargs: output)


def rows_of(output: Any) -> Any:
    """The first tensor of a module's output if it can have an image a row, else None."""
    first = output[0] if isinstance(output, tuple) and output else output
    fits = isinstance(first, Tensor) and first.ndim > 1 and first.is_floating_point()
    return first if fits else None


def is_per_image(output: Any) -> bool:
    """Whether all tensors of a module's output for PROBE_IMAGES have an image a row."""
    if isinstance(output, Tensor):
        return output.ndim > 1 and output.is_floating_point() and len(output) == PROBE_IMAGES
    if type(output) is tuple:
        return all(is_per_image(one) or not isinstance(one, Tensor | tuple | list | dict) for one in output)
    return False


def blank(output: Any, rows: Tensor) -> Any:
    """The output with zeros for as many images as there are rows."""
    if isinstance(output, Tensor):
        return rows.new_zeros(1).expand(len(rows), *output.shape[1:])
    return tuple(blank(one, rows) for one in output) if isinstance(output, tuple) else output


def with_rows(output: Any, rows: Tensor) -> Any:
    """The output with other rows as its first tensor."""
    return (rows, *output[1:]) if isinstance(output, tuple) else rows
