"""Fit a checkpoint's classifier to the classes asked for: by their names, not by their number."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import nn

from recycle_cli.reports import say

SHOWN = 3


def fit_labels(
    name: str, model: Any, known: Sequence[str], labels: Sequence[str], missing: frozenset[str], seed: int
) -> frozenset[str]:
    """Put the classifier's rows in the order of `labels`, or make it anew from `seed` if it `known` others.

    Returns the names of the parameters made anew. A layer that is `missing` from the checkpoint is new already.
    """
    if tuple(known) == tuple(labels) or len(known) != len(labels):
        return frozenset()
    axes = {key: axis for key, axis in _label_axes(model, len(labels)).items() if key not in missing}
    if not axes:
        return frozenset()
    if sorted(known) == sorted(labels) and len(set(known)) == len(known):
        order = torch.tensor([list(known).index(label) for label in labels])
        for key, axis in axes.items():
            parameter = model.get_parameter(key)
            parameter.data = parameter.data.index_select(axis, order)
        return frozenset()
    say(
        f"model {name!r}: its classes ({_shown(known)}) are not those of the data ({_shown(labels)}); its classifier "
        "is made anew from --seed"
    )
    _renew(model, axes, seed)
    return frozenset(axes)


def _label_axes(model: Any, classes: int) -> dict[str, int]:
    """The parameters that have a row for each class, and on which axis: those of a model with one more are larger."""
    config = deepcopy(model.config)
    config.num_labels = classes + 1
    with torch.device("meta"):
        larger = type(model)(config)
    shapes = {key: one.shape for key, one in larger.named_parameters()}
    return {
        key: next(axis for axis, (mine, its) in enumerate(zip(one.shape, shapes[key], strict=True)) if mine != its)
        for key, one in model.named_parameters()
        if one.shape != shapes[key]
    }


def _renew(model: Any, keys: Sequence[str] | dict[str, int], seed: int) -> None:
    """Draw these parameters as the model draws new ones."""
    modules: list[nn.Module] = [model.get_submodule(key.rpartition(".")[0]) for key in keys]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for module in dict.fromkeys(modules):
            for parameter in module.parameters(recurse=False):
                parameter._is_hf_initialized = False  # type: ignore[attr-defined]
            model._init_weights(module)


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
