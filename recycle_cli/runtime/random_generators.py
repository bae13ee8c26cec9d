"""The random generators that dropout and mixing draw from, with states of its own for each head."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch


class Randomness:
    """The states of the random generators of the CPU and of the device, seeded with `seed`.

    They advance only inside `drawing`, so that several heads trained in one process do not disturb one another.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self.device = device
        torch.manual_seed(seed)
        self.states = _states(device)

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Set the global generators to these states for the block, and keep the states they reach."""
        _restore(self.states, self.device)
        yield
        self.states = _states(self.device)

    def seed(self, seed: int) -> None:
        """Begin anew with this seed."""
        torch.manual_seed(seed)
        self.states = _states(self.device)

    def load(self, states: Mapping[str, torch.Tensor]) -> None:
        """Restore the states that a checkpoint kept."""
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
