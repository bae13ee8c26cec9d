"""Which parameters a tensor depends on, read off the autograd graph: no backward pass, no gradient is allocated."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def parameters_behind(compute: Callable[[], Tensor], model: nn.Module) -> frozenset[int]:
    """`id` of each of the model's parameters that the result depends on, whether it is frozen or not.

    Sees a weight that is used without its module being called, as the relative embeddings of DeBERTa are.
    """
    return behind_and_result(compute, model)[0]


def behind_and_result(compute: Callable[[], Tensor], model: nn.Module) -> tuple[frozenset[int], Tensor]:
    """The parameters as `parameters_behind` gives them, and the result without its graph."""
    with tracked(model):
        result = compute()
    return behind(result), result.detach()


@contextmanager
def tracked(model: nn.Module) -> Iterator[None]:
    """Inside the block a graph is kept of what the model computes, with all of its parameters, frozen or not."""
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    floating = [parameter for parameter in frozen if parameter.is_floating_point()]
    for parameter in floating:
        parameter.requires_grad_(True)
    try:
        with torch.enable_grad():
            yield
    finally:
        for parameter in floating:
            parameter.requires_grad_(False)


def behind(result: Tensor) -> frozenset[int]:
    """`id` of each parameter that leads to a result that was `tracked`."""
    return frozenset(id(leaf) for leaf in _leaves(result))


@contextmanager
def modules_called(model: nn.Module) -> Iterator[list[nn.Module]]:
    """Collect each module that is called inside the block.

    Their parameters include those that no graph leads to: RoFormer reads its table of positions without gradient.
    """
    called: list[nn.Module] = []

    def note(module: nn.Module, args: Any) -> None:
        called.append(module)

    handles = [module.register_forward_pre_hook(note) for module in model.modules()]
    try:
        yield called
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def without_gradient(model: nn.Module) -> Iterator[None]:
    """Inside the block nothing takes a gradient, and no parameter of the model asks for one.

    `torch.no_grad` alone leaves a parameter that a module is called with one that wants a gradient, which the counter
    of FLOPs takes for a tensor with a history.
    """
    training = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in training:
        parameter.requires_grad_(False)
    try:
        with torch.no_grad():
            yield
    finally:
        for parameter in training:
            parameter.requires_grad_(True)


def _leaves(result: Tensor) -> Iterator[Tensor]:
    """The leaf tensors of the graph that ends in `result`."""
    todo: list[Any] = [result.grad_fn]
    seen: set[Any] = set()
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            yield node.variable
        todo += [parent for parent, _ in node.next_functions]
