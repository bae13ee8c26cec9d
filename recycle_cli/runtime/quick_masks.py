"""Draw the Bernoulli masks of dropout on a CPU in a quarter of PyTorch's time.

This replaces the operator `aten::bernoulli_.float` on the CPU for the whole process, in all threads, for as long as any
block `with quick_masks():` is running: the training loop opens one around a training, `recycle bench` one around a head
that it times. When the last block is left, the operator is PyTorch's own again. Nothing is replaced at import. A
program that serves requests should not open a block, since other models in the process would draw from our kernel too.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import torch
from torch.library import Library

_LANES, _STEPS = 4, 1 << 16
"""One draw of 64 bits is split into four numbers, each of 2^16 equally likely values."""

_LEAST = torch.iinfo(torch.int64).min


class _Override:
    """Count the blocks that use our kernel, over all threads; the last one to leave puts PyTorch's kernel back."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._users = 0
        self._library: Library | None = None

    def enter(self) -> None:
        with self._lock:
            if self._library is None:
                self._library = _library()
            self._users += 1

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            if not self._users and self._library is not None:
                self._library._destroy()
                self._library = None


def _library() -> Library:
    """Register our kernel for the operator. It is in force until the library is destroyed."""
    library = Library("aten", "IMPL")
    with warnings.catch_warnings():
        # Some builds of PyTorch warn once that a kernel is overridden, which is what we want.
        warnings.filterwarnings("ignore", message="Warning only once for all operators")
        library.impl("bernoulli_.float", _bernoulli, "CPU")
    return library


_override = _Override()


@contextmanager
def quick_masks() -> Iterator[None]:
    """Use our kernel for Bernoulli masks on the CPU, which dropout draws, while the block runs.

    Masks come from the same generator, so seeds and resuming still work. A probability is rounded to a multiple of
    2^-16. PyTorch's own kernel (2.14) draws and compares one element after another in one thread: without ours an epoch
    of MiniLM's head takes 1.2 times as long on two cores (docs/performance.md).
    """
    _override.enter()
    try:
        yield
    finally:
        _override.leave()


def _bernoulli(mask: torch.Tensor, p: float = 0.5, *, generator: torch.Generator | None = None) -> torch.Tensor:
    """Fill the mask with 1 with probability p, else with 0, as PyTorch documents `bernoulli_`."""
    if not 0 <= p <= 1:
        raise RuntimeError(f"bernoulli_ expects p to be in [0, 1], but got p={p}")
    below = round(p * _STEPS) - _STEPS // 2
    if below == _STEPS // 2:  # one more than an int16 lane holds
        return mask.fill_(1)
    bits = torch.empty(-(-mask.numel() // _LANES), dtype=torch.int64, device=mask.device)
    bits.random_(_LEAST, None, generator=generator)
    lanes = bits.view(torch.int16)[: mask.numel()].view(mask.shape)
    return torch.lt(lanes, below, out=mask)
