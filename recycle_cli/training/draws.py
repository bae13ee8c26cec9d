"""Find what a training draws at random from generators that its seed does not set, and no checkpoint keeps."""

import pickle
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


def positions(model: nn.Module) -> tuple[bytes, ...]:
    """Where the generators stand that are not PyTorch's own: Python's, numpy's, and those that modules hold."""
    held = (one for module in model.modules() for value in vars(module).values() for one in _position(value))
    return (pickle.dumps(random.getstate()), pickle.dumps(np.random.get_state()), *held)


def _position(value: Any) -> Iterator[bytes]:
    """The state of a random generator; nothing of another value."""
    if isinstance(value, torch.Generator):
        yield value.get_state().numpy().tobytes()
    elif isinstance(value, random.Random):
        yield pickle.dumps(value.getstate())
    elif isinstance(value, np.random.Generator):
        yield pickle.dumps(value.bit_generator.state)
    elif isinstance(value, np.random.RandomState):
        yield pickle.dumps(value.get_state())


def foreign_draws(compute: Callable[[], Tensor]) -> tuple[Tensor, bool]:
    """The outputs of a pass, without their graph, and whether an operation of PyTorch drew from a generator given to it
    that is not PyTorch's own."""
    with _Given() as given:
        outputs = compute().detach()
    return outputs, given.foreign


class _Given(TorchFunctionMode):
    """Looks at the generators that operations are given."""

    def __init__(self) -> None:
        super().__init__()
        self.foreign = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        own = (torch.default_generator, *torch.cuda.default_generators)
        given = [one for one in (*args, *(kwargs or {}).values()) if isinstance(one, torch.Generator)]
        self.foreign |= any(all(one is not known for known in own) for one in given)
        return func(*args, **(kwargs or {}))
