"""The generators that dropout and mixing draw from, kept apart for each head; and drawing a CPU's masks quickly."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Lock

import torch
from torch.library import Library

_LANES, _STEPS = 4, 1 << 16
"""One draw of 64 bits makes four numbers of 2^16 equally likely values."""

_LEAST = torch.iinfo(torch.int64).min


class Randomness:
    """The states of the CPU's generator and of the device's own, from `seed` on. Nothing is drawn outside `drawing`."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self.device = device
        torch.manual_seed(seed)
        self.states = _states(device)

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Within, the global generators go on where these stood."""
        _restore(self.states, self.device)
        yield
        self.states = _states(self.device)

    def load(self, states: Mapping[str, torch.Tensor]) -> None:
        """Go on from states that a checkpoint kept."""
        self.states = dict(states)


def _states(device: torch.device) -> dict[str, torch.Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    if device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def _restore(states: Mapping[str, torch.Tensor], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
    if device.type == "mps" and "mps" in states:
        torch.mps.set_rng_state(states["mps"])


class _Override:
    """The operator is PyTorch's own again when the last block that asked for ours is left, in whatever thread."""

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
    """The operator with our kernel, in force until the library is destroyed."""
    library = Library("aten", "IMPL")
    with warnings.catch_warnings():
        # Some builds of PyTorch tell, once, that there was a kernel before: that is what we want.
        warnings.filterwarnings("ignore", message="Warning only once for all operators")
        library.impl("bernoulli_.float", _bernoulli, "CPU")
    return library


_override = _Override()


@contextmanager
def quick_masks() -> Iterator[None]:
    """Within, Bernoulli masks on the CPU, which is what dropout draws, take a quarter of PyTorch's time.

    They come from the same generator, so that seeds and resuming hold. A probability is rounded to a multiple of 2^-16.
    PyTorch's own kernel (2.14) draws and compares one element after another in one thread: without this an epoch of
    MiniLM's head takes 1.2 times as long on two cores (docs/performance.md).
    """
    _override.enter()
    try:
        yield
    finally:
        _override.leave()


def _bernoulli(mask: torch.Tensor, p: float = 0.5, *, generator: torch.Generator | None = None) -> torch.Tensor:
    """Fill with 1 by probability p, else 0: what the operator `bernoulli_` is documented to do."""
    if not 0 <= p <= 1:
        raise RuntimeError(f"bernoulli_ expects p to be in [0, 1], but got p={p}")
    below = round(p * _STEPS) - _STEPS // 2
    if below == _STEPS // 2:  # beyond what a lane holds
        return mask.fill_(1)
    bits = torch.empty(-(-mask.numel() // _LANES), dtype=torch.int64, device=mask.device)
    bits.random_(_LEAST, None, generator=generator)
    lanes = bits.view(torch.int16)[: mask.numel()].view(mask.shape)
    return torch.lt(lanes, below, out=mask)
