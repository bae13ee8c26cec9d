"""What a step of the head changes: exactly the head, whatever the model's code keeps or switches behind our back."""

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn

from recycle_cli.errors import ModelError
from recycle_cli.models.dependence import parameters_behind
from recycle_cli.models.eval_mode import evaluating, set_modes
from recycle_cli.models.vision.cutter import Cutter, Named

TOLERANCE = 1e-4
"""Largest difference, as a share of the largest value, that is rounding and no proof of another course."""

_STEP = 0.03
"""What the tried step adds to each parameter, as a share of it and as a number."""

_TORCHS = frozenset(vars(nn.Module()))
"""PyTorch's own attributes of a module: its parameters, buffers, modules and hooks."""

_Values = Mapping[nn.Module, Mapping[str, Any]]


class Attributes:
    """The plain values of a model's modules before its first pass, to which a cache goes back."""

    def __init__(self, model: nn.Module) -> None:
        self._of = {module: _plain(module) for module in model.modules()}

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Inside the block the modules have the values of then."""
        now = {module: _plain(module) for module in self._of}
        self._put(now, self._of)
        try:
            yield
        finally:
            self._put({module: _plain(module) for module in self._of}, now)

    @staticmethod
    def _put(old: _Values, new: _Values) -> None:
        for module, values in new.items():
            for name in old[module].keys() - values.keys():
                del module.__dict__[name]
            module.__dict__.update({name: copy(value) for name, value in values.items()})


def check_step(halves: Cutter, name: str, images: Tensor, fresh: Attributes) -> None:
    """Try a step of the head at a cut, and undo it. Raises ModelError.

    In training the head must use the parameters that it uses in eval, and change no buffer but its own. After the step
    the rows must be the same, the head must give the whole model's logits from them, and the whole model those of a
    model that has kept nothing from passes before the step.
    """
    model = halves.model
    trunk, head = halves.trunk_tensors(name), halves.head_tensors(name)
    frozen = {id(one) for _, one in trunk}
    # Those in neither half too: a head that has kept what was made of them does not show that it needs them.
    rest = [one for one in model.parameters() if id(one) not in frozen and one.is_floating_point()]
    with _undone(model, rest):
        with evaluating(model), torch.no_grad():
            rows = halves.trunk([name])(images)[name].clone()
        before = {key: one.clone() for key, one in model.named_buffers()}
        used = _used_in_training(halves, name, rows)
        _check_parameters(model, name, used, trunk, head)
        own = {id(one) for _, one in head}
        for key, one in model.named_buffers():
            if not torch.equal(one, before[key]) and id(one) not in own and not key.endswith("num_batches_tracked"):
                raise _unfit(model, name, f"a step of its head changes {key}")
        with torch.no_grad():
            for parameter in rest:
                parameter.mul_(1 + _STEP).add_(_STEP)
        with evaluating(model), torch.no_grad():
            whole, again = halves.full(images), halves.trunk([name])(images)[name]
            ours = halves.head(name)(rows)
            with fresh.restored():
                anew = halves.full(images)
    if not is_rounding(again, rows):
        raise _unfit(model, name, "the rows there change when the head is trained")
    if not is_rounding(ours, whole):
        raise _unfit(model, name, "after a step the head differs from the whole model")
    if not is_rounding(whole, anew):
        raise _unfit(model, name, "its modules keep numbers that a step of the head makes stale")


def is_rounding(ours: Tensor, theirs: Tensor) -> bool:
    """Whether two tensors differ by rounding alone."""
    return float((ours - theirs).abs().max()) <= TOLERANCE * float(theirs.abs().max())


def _used_in_training(halves: Cutter, name: str, rows: Tensor) -> frozenset[int]:
    """The parameters behind a head's logits in training; its random numbers leave no trace."""
    model = halves.model
    modes = [(module, module.training) for module in model.modules()]
    still = set(halves.trunk_modules(name))
    with torch.random.fork_rng():
        set_modes([(module, module not in still) for module, _ in modes])
        try:
            return parameters_behind(lambda: halves.head(name)(rows), model)
        finally:
            set_modes(modes)


def _check_parameters(model: nn.Module, name: str, used: AbstractSet[int], trunk: Named, head: Named) -> None:
    own, shared = {id(one) for _, one in head}, {id(one) for _, one in trunk}
    for key, one in model.named_parameters():
        if id(one) not in shared and (id(one) in used) != (id(one) in own):
            when = "training" if id(one) in used else "eval"
            raise _unfit(model, name, f"its head uses {key} in {when} alone")


@contextmanager
def _undone(model: nn.Module, tensors: Sequence[Tensor]) -> Iterator[None]:
    """Put these tensors and every buffer back after the block."""
    kept = [(one, one.detach().clone()) for one in [*tensors, *model.buffers()]]
    try:
        yield
    finally:
        with torch.no_grad():
            for one, value in kept:
                one.copy_(value)


def _plain(module: nn.Module) -> dict[str, Any]:
    """Tensors and collections that lie on a module beside its parameters, buffers, modules and hooks."""
    values = vars(module).items()
    own = {name: value for name, value in values if name not in _TORCHS and isinstance(value, Tensor | dict | list)}
    return {name: value if isinstance(value, Tensor) else copy(value) for name, value in own.items()} | {
        name: None for name, value in values if value is None and name not in _TORCHS
    }


def _unfit(model: nn.Module, name: str, why: str) -> ModelError:
    return ModelError(f"{type(model).__name__} cannot be cut at {name}: {why}; use another cut, or cut 0")
