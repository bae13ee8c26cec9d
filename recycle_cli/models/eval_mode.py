"""Eval mode: for the length of a block, or for good in the frozen part of a model."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import MethodType

from torch import nn
from transformers import PreTrainedModel

_PLAIN = (nn.Module.train, PreTrainedModel.train)
"""Ways to change the mode that do nothing more; transformers' own casts kernels, if they are in use."""


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every module in eval inside the block, and each back in its own mode afterwards.

    A module whose class does more when its mode changes is told so on the way in and out: LeViT's attention keeps its
    biases in eval and forgets them in training, and would go on with those of before a step.
    """
    modes = [(module, module.training) for module in model.modules()]
    set_modes([(module, False) for module, _ in modes])
    try:
        yield
    finally:
        set_modes(modes)


def set_modes(modes: Sequence[tuple[nn.Module, bool]]) -> None:
    """Give each module its mode, whatever `freeze` said; a class with a `train` of its own goes through training."""
    for module, training in modes:
        if type(module).train not in _PLAIN or getattr(module, "use_kernels", False):
            # Of the class, past the instance's of a module that `freeze` keeps in eval.
            type(module).train(module, True)
            type(module).train(module, training)
    for module, training in modes:
        module.training = training


def freeze(model: nn.Module, parameters: Iterable[nn.Parameter], modules: Iterable[nn.Module]) -> None:
    """Take these parameters out of training, and keep these modules in eval whatever `model.train()` says later.

    Modules that an earlier call kept in eval follow `model.train()` again.
    """
    for module in model.modules():
        module.__dict__.pop("train", None)
    for parameter in parameters:
        parameter.requires_grad_(False)
    keep_in_eval(modules)


def keep_in_eval(modules: Iterable[nn.Module]) -> None:
    """Keep these modules in eval as well, whatever `model.train()` says later."""
    for module in modules:
        module.eval()
        # On the instance: the class, and so the other modules of its kind, stay as they are.
        module.__dict__["train"] = MethodType(_stay_in_eval, module)


def _stay_in_eval(module: nn.Module, mode: bool = True) -> nn.Module:
    return module
