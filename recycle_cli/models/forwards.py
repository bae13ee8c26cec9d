"""Replace the `forward` of a module for the length of a block, to watch it or to let it compute something else."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import update_wrapper
from typing import Any

from torch import nn

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
Before = Callable[[tuple[Any, ...], dict[str, Any]], Arguments | None]
After = Callable[[tuple[Any, ...], dict[str, Any], Any], None]
Compute = Callable[..., Any]


class _Forward:
    """Stands in a module's `forward`: what it computes now, and those who watch it whatever that is."""

    def __init__(self, usual: Compute) -> None:
        self.compute = usual
        self.watchers: list[tuple[Before | None, After | None]] = []
        update_wrapper(self, usual)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        for before, _ in self.watchers:
            if before is not None and (changed := before(args, kwargs)) is not None:
                args, kwargs = changed
        output = self.compute(*args, **kwargs)
        for _, after in self.watchers:
            if after is not None:
                after(args, kwargs, output)
        return output


@contextmanager
def computing(module: nn.Module, make: Callable[[Compute], Compute]) -> Iterator[None]:
    """Inside the block the module computes what `make` makes of its usual forward, whether the module or its `forward`
    is called."""
    with _standing_in(module) as forward:
        usual = forward.compute
        forward.compute = make(usual)
        try:
            yield
        finally:
            forward.compute = usual


@contextmanager
def watching(module: nn.Module, before: Before | None = None, after: After | None = None) -> Iterator[None]:
    """Inside the block `before` sees the arguments of each call, and may give others; `after` sees the output too.

    Unlike a hook it sees the calls of `module.forward`, by which SqueezeBERT runs its blocks.
    """
    with _standing_in(module) as forward:
        watcher = before, after
        forward.watchers.append(watcher)
        try:
            yield
        finally:
            forward.watchers.remove(watcher)


@contextmanager
def _standing_in(module: nn.Module) -> Iterator[_Forward]:
    """The module's `_Forward`; the first to need one puts it there, and takes it away.

    An attribute of the instance: the module stays the same object, with its name, attributes, hooks and state dict.
    """
    own = module.__dict__.get("forward")
    if isinstance(own, _Forward):
        yield own
        return
    module.__dict__["forward"] = forward = _Forward(module.forward)
    try:
        yield forward
    finally:
        del module.__dict__["forward"]
        if own is not None:
            module.__dict__["forward"] = own
