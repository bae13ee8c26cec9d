"""Eval mode: for the length of a block, or for good in the frozen part of a model."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import MethodType

from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every module in eval inside the block, and each back in its own mode afterwards."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def freeze(model: nn.Module, parameters: Iterable[nn.Parameter], modules: Iterable[nn.Module]) -> None:
    """Take these parameters out of training, and keep these modules in eval whatever `model.train()` says later.

    Modules that an earlier call kept in eval follow `model.train()` again.
    """
    for module in model.modules():
        module.__dict__.pop("train", None)
    for parameter in parameters:
        parameter.requires_grad_(False)
    for module in modules:
        module.eval()
        # On the instance: the class, and so the other modules of its kind, stay as they are.
        module.__dict__["train"] = MethodType(_stay_in_eval, module)


def _stay_in_eval(module: nn.Module, mode: bool = True) -> nn.Module:
    return module
