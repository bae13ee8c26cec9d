"""Prove on the model at hand that the config fields which a recipe leaves out by their names decide nothing."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor
from transformers.initialization import no_init_weights

from recycle_cli.models.eval_mode import evaluating
from recycle_cli.models.hub import quiet
from recycle_cli.models.identity import architecture_of, plain
from recycle_cli.models.text.alone import TOLERANCE, close
from recycle_cli.models.text.engine import forward_names

LABELS = frozenset(("id2label", "label2id", "num_labels"))
"""They name and number the outputs of the task layer, which a trunk does not have."""


def architecture_proved(model: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """`architecture_of` the model's config, with each field that it leaves out although the model goes by it.

    The model without its task layer computes the hidden states of `inputs` once as it is, and once built anew with
    all fields that are left out as its class has them. If they differ, the fields that do it are part of the recipe;
    a model that cannot be built anew is left as it is.
    """
    data, base = model.config.to_dict(), model.base_model
    kept = architecture_of(data)
    usual = _of_class_alone(base.config)
    if usual is None or base.config is not model.config:
        return kept
    left_out = [name for name in data if name not in kept and name not in LABELS and data[name] is not None]
    unproved = {name: usual.get(name, ...) for name in left_out if data[name] != usual.get(name, ...)}
    if not unproved:
        return kept
    rows = _hidden(base, inputs)
    # One that cannot be built anew as it is proves nothing.
    if _same(rows, _rebuilt(base, unproved, inputs)) or not _same(rows, _rebuilt(base, {}, inputs)):
        return kept
    alone = [name for name, value in unproved.items() if not _same(rows, _rebuilt(base, {name: value}, inputs))]
    return kept | plain({name: data[name] for name in alone or unproved})


def _of_class_alone(config: Any) -> dict[str, Any] | None:
    """The fields of such a config without settings; None if there is no such thing."""
    try:
        with quiet():
            return dict(type(config)().to_dict())
    except MemoryError:
        raise  # else the recipe would be another one
    except Exception:  # noqa: BLE001 - a config's own code raises whatever it likes
        return None


def _rebuilt(base: Any, fields: Mapping[str, Any], inputs: Mapping[str, Any]) -> Tensor | None:
    """The hidden states that a model with other fields and the same weights gives; None if there is no such model.

    A field that is to be `...` is taken away: the config's class has none of its name.
    """
    try:
        config = deepcopy(base.config)
        for name, value in fields.items():
            if value is ...:
                delattr(config, name)
            else:
                setattr(config, name, value)
        with quiet(), no_init_weights():
            other = type(base)(config)
        # A base that a classifier holds may lack the pooler that it has alone, which no hidden state goes through.
        other.load_state_dict(base.state_dict(), strict=False, assign=True)
        return _hidden(other.to(base.device), inputs)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - a model's own code raises whatever it likes
        return None


def _hidden(base: Any, inputs: Mapping[str, Any]) -> Tensor:
    # A cache of keys and values is of no use to one pass, and not every model has layers for it.
    options = {"use_cache": False} if "use_cache" in forward_names(base) else {}
    with evaluating(base), torch.no_grad():
        hidden: Tensor = base(**inputs, **options)[0]
    return hidden


def _same(one: Tensor, other: Tensor | None) -> bool:
    return other is not None and one.shape == other.shape and close(one, other, TOLERANCE)
