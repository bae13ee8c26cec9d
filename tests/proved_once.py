"""Proofs that are made once for each kind of model or training and process, where the proof is not what is tested.

A proof costs more than the training of a tiny model that it precedes. Its result is remembered by the kind of the
model: two of one kind differ in their weights alone. Commands that a test starts prove everything each time.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import pytest
from torch import nn

from recycle_cli.models.text import split
from recycle_cli.models.vision import pretrained
from recycle_cli.verbs import finetune

_off = 0


@contextmanager
def proved_each_time() -> Iterator[None]:
    """Inside the block every model and every training is proved, whether its kind has been or not."""
    global _off
    _off += 1
    try:
        yield
    finally:
        _off -= 1


@contextmanager
def proved_once() -> Iterator[None]:
    """Inside the block one training of each kind is proved, and the fields of one config of each kind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetune, "prove_training", _once(finetune.prove_training, _kind_of_training))
        for module in (split, pretrained):
            patch.setattr(module, "architecture_proved", _once(module.architecture_proved, _kind_of_config))
        yield


def _once(prove: Callable[..., Any], kind_of: Callable[..., Any]) -> Callable[..., Any]:
    """The proof with its results remembered by kind; one that fails is made again."""
    found: dict[Any, Any] = {}

    def proved(*given: Any) -> Any:
        if _off:
            return prove(*given)
        kind = kind_of(*given)
        if kind not in found:
            found[kind] = prove(*given)
        return deepcopy(found[kind])

    return proved


def _kind_of_training(
    setup: Any, layer: Any, samples: Any, folder: Any, weights: Any = None, adapter: Any = None
) -> Any:
    halves, trained = setup.split, None if weights is None else sorted(weights)
    recipe = halves.recipe
    asked = (setup.cut, halves.cuts, recipe.dtype, recipe.max_length, recipe.preprocessor, layer, adapter, trained)
    return _kind_of_model(halves.model), type(setup.loaded), setup.reused is None, repr(asked)


def _kind_of_config(base: Any, kept: Any, compute: Any) -> Any:
    return _kind_of_model(base), json.dumps(kept, sort_keys=True, default=str)


def _kind_of_model(model: nn.Module) -> Any:
    """All that a model is made of but its weights: its modules and their code, its settings, its tensors' forms."""
    config = getattr(model, "config", None)
    fields = {} if config is None else {**config.to_dict(), "_name_or_path": None}
    code = tuple((type(module), getattr(module.forward, "__func__", module.forward)) for module in model.modules())
    tensors = tuple((name, one.dtype, tuple(one.shape)) for name, one in model.state_dict().items())
    return repr(model), json.dumps(fields, sort_keys=True, default=str), code, tensors
