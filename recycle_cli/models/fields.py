"""Prove on the model at hand that the config fields which a recipe leaves out by their names decide nothing."""

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor
from transformers.initialization import no_init_weights

from recycle_cli.models.eval_mode import evaluating
from recycle_cli.models.hub import quiet
from recycle_cli.models.identity import plain
from recycle_cli.models.rounding import TOLERANCE, close

LABELS = frozenset(("id2label", "label2id", "num_labels"))
"""They name and number the outputs of the task layer, which a trunk does not have."""

NO_MEMORY = (MemoryError, torch.OutOfMemoryError)
"""These say nothing about a field: were they taken for its answer, the recipe would depend on the memory at hand."""

Path = tuple[str, ...]
"""A field of a config, or of a config in it."""

Compute = Callable[[Any], Tensor]
"""A model to what it computes of fixed inputs."""


def architecture_proved(base: Any, kept: Mapping[str, Any], compute: Compute) -> dict[str, Any]:
    """The fields of a config that are `kept`, with each that they leave out although the model goes by it.

    `base`, the model without its task layer if it can be had, computes once as it is, and once built anew with all
    fields that are left out as its class has them. If that differs, the fields that do it are part of the recipe; a
    model that cannot be built anew is left as it is.
    """
    data, usual = base.config.to_dict(), _of_class_alone(base.config)
    if usual is None:
        return dict(kept)
    unproved = {path: _at(usual, path) for path in _left_out(data, kept) if _at(data, path) != _at(usual, path)}
    if not unproved:
        return dict(kept)
    result = _computed(base, compute)
    if _same(result, _rebuilt(base, unproved, compute)):
        return dict(kept)
    if not _same(result, _rebuilt(base, {}, compute)):
        return dict(kept)
    alone = [path for path, value in unproved.items() if not _same(result, _rebuilt(base, {path: value}, compute))]
    found = dict(kept)
    for path in alone or unproved:
        found = _with(found, path, _at(data, path))
    return found


def _left_out(data: Mapping[str, Any], kept: Mapping[str, Any], above: Path = ()) -> Iterator[Path]:
    """The fields that are set and not kept, those of configs inside too."""
    for name, value in data.items():
        inner = kept.get(name)
        if isinstance(value, Mapping) and isinstance(inner, Mapping):
            yield from _left_out(value, inner, (*above, name))
        elif name not in kept and name not in LABELS and value is not None:
            yield (*above, name)


def _at(data: Mapping[str, Any], path: Path) -> Any:
    """A field's value; `...` if there is no such field."""
    value: Any = data
    for name in path:
        value = value.get(name, ...) if isinstance(value, Mapping) else ...
    return value


def _with(fields: Mapping[str, Any], path: Path, value: Any) -> dict[str, Any]:
    name, *rest = path
    return {**fields, **(plain({name: value}) if not rest else {name: _with(fields[name], tuple(rest), value)})}


def _of_class_alone(config: Any) -> dict[str, Any] | None:
    """The fields of such a config without settings; None if there is no such thing."""
    try:
        with quiet():
            return dict(type(config)().to_dict())
    except NO_MEMORY:
        raise
    except Exception:  # noqa: BLE001 - a config's own code raises whatever it likes
        return None


def _rebuilt(base: Any, fields: Mapping[Path, Any], compute: Compute) -> Tensor | None:
    """The result of a model with other fields and the same weights; None if there is no such model."""
    try:
        config = deepcopy(base.config)
        for path, value in fields.items():
            _put(config, path, value)
        with quiet(), no_init_weights():
            other = type(base)(config)
        # A base that a classifier holds may lack the pooler that it has alone, which no hidden state goes through.
        other.load_state_dict(base.state_dict(), strict=False, assign=True)
        return _computed(other.to(next(base.parameters()).device), compute)
    except NO_MEMORY:
        raise
    except Exception:  # noqa: BLE001 - a model's own code raises whatever it likes
        return None


def _put(config: Any, path: Path, value: Any) -> None:
    """Set a field; one that is to be `...` is taken away: the config's class has none of its name."""
    *above, name = path
    owner = config
    for one in above:
        owner = owner[one] if isinstance(owner, Mapping) else getattr(owner, one)
    if isinstance(owner, dict):
        owner.pop(name, None) if value is ... else owner.update({name: value})
    elif value is ...:
        delattr(owner, name)
    else:
        setattr(owner, name, value)


def _computed(base: Any, compute: Compute) -> Tensor:
    with evaluating(base), torch.no_grad():
        return compute(base)


def _same(one: Tensor, other: Tensor | None) -> bool:
    return other is not None and one.shape == other.shape and close(one, other, TOLERANCE)
