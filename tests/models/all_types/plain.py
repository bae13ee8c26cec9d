"""The right answers, by transformers and PyTorch alone: each sample by itself, and a step against a frozen trunk."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

Inputs = Mapping[str, Tensor]

REACH = 0.01
"""How far the step goes: the norm of the change as a share of the norm of what trains."""


@dataclass
class Step:
    """What a step did. `rate`: its learning rate; `trained`: names of the tensors that it may move."""

    rate: float
    loss: float
    trained: frozenset[str]


@dataclass
class _Passed:
    """What was seen at the entrance: the rows, and the modules that were done by then."""

    rows: Tensor | None = None
    done: set[nn.Module] = field(default_factory=set)


def alone(model: nn.Module, samples: Sequence[Inputs]) -> Tensor:
    """Logits (n, classes) of each sample by itself, in eval."""
    model.eval()
    with torch.no_grad():
        return torch.cat([logits(model, one) for one in samples])


def logits(model: nn.Module, inputs: Inputs) -> Tensor:
    """The first tensor that the model gives for the inputs that it takes."""
    known = inspect.signature(type(model).forward).parameters
    given: dict[str, Any] = {name: value for name, value in inputs.items() if name in known}
    given |= {name: value for name, value in {"use_cache": False}.items() if name in known}
    return model(**given, return_dict=True).logits


def step(model: nn.Module, batches: Sequence[Inputs], labels: Tensor, entrance: str) -> Step:
    """A step of plain gradient descent on what comes after the module `entrance`, whose output is the rows; all before
    is frozen and in eval.

    The loss is the mean cross-entropy over the samples of all batches. Trained is every parameter that the loss
    reaches once the rows are cut off, but for those that the rows themselves depend on.
    """
    model.eval()
    with torch.no_grad(), _watching(model, entrance) as passed:
        logits(model, batches[0])
    model.train()
    for module in passed.done:
        module.training = False
    named = dict(model.named_parameters())
    before = {name: one.detach().clone() for name, one in model.state_dict().items()}
    behind: set[str] = set()
    total = torch.zeros((), dtype=next(model.parameters()).dtype)
    place, longest = 0, max(batches, key=lambda one: next(iter(one.values())).shape[-1])
    for batch in batches:
        with _watching(model, entrance, cut_off=True) as passed:
            outputs = logits(model, batch)
        assert passed.rows is not None
        if batch is longest:
            behind = _reached(passed.rows, named)
        total = total + nn.functional.cross_entropy(outputs, labels[place : place + len(outputs)], reduction="sum")
        place += len(outputs)
    loss = total / len(labels)
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    gradients = {
        name: one for (name, _), one in zip(named.items(), found, strict=True) if one is not None and name not in behind
    }
    whole = sum(float(named[name].detach().square().sum()) for name in gradients)
    rate = REACH * (whole / max(1e-30, sum(float(one.square().sum()) for one in gradients.values()))) ** 0.5
    with torch.no_grad():
        for name, gradient in gradients.items():
            named[name].sub_(rate * gradient)
    model.eval()
    changed = {name for name, one in model.state_dict().items() if not torch.equal(one, before[name])}
    return Step(rate, float(loss), frozenset(gradients.keys() | changed))


def _reached(rows: Tensor, named: Mapping[str, nn.Parameter]) -> set[str]:
    if not rows.requires_grad:
        return set()
    weights = torch.randn(rows.shape, generator=torch.Generator().manual_seed(0)).to(rows.dtype)
    found = torch.autograd.grad((rows * weights).sum(), list(named.values()), allow_unused=True, retain_graph=True)
    return {name for name, one in zip(named, found, strict=True) if one is not None}


@contextmanager
def _watching(model: nn.Module, entrance: str, *, cut_off: bool = False) -> Iterator[_Passed]:
    """Note the rows that leave the entrance, and which modules are called before that alone; `cut_off`: no gradient
    passes."""
    passed, later, inside = _Passed(), set[nn.Module](), list[nn.Module]()
    gate = model.get_submodule(entrance)
    open_gate = [False]
    handles = []

    def at_gate(rows: Tensor) -> Tensor:
        passed.rows, open_gate[0] = rows, True
        later.update(inside)
        return rows.detach() if cut_off else rows

    def enter(module: nn.Module, args: Any) -> None:
        (later if open_gate[0] else passed.done).add(module)
        inside.append(module)

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        inside.remove(module)

    def forward(*args: Any, **kwargs: Any) -> Any:
        output = usual(*args, **kwargs)
        if isinstance(output, dict):
            name, rows = next(iter(output.items()))
            return {**output, name: at_gate(rows)}
        if isinstance(output, tuple | list):
            return type(output)((at_gate(output[0]), *output[1:]))
        return at_gate(output)

    # Not a hook: some models call a block's forward themselves.
    usual, gate.forward = gate.forward, forward

    for module in model.modules():
        handles.append(module.register_forward_pre_hook(enter))
        handles.append(module.register_forward_hook(leave))
    try:
        yield passed
    finally:
        passed.done -= later
        del gate.__dict__["forward"]
        for handle in handles:
            handle.remove()
