"""Fit a checkpoint's classifier to the classes asked for: by their names, not by their number."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from recycle_cli.reports import say

CLASSES_SHOWN = 3
"""Classes that a message names."""


def fit_rows(
    name: str,
    known: Sequence[str],
    labels: Sequence[str],
    classifier: Mapping[str, tuple[Tensor, int]],
    renew: Callable[[], None],
) -> frozenset[str]:
    """Put a classifier's rows in the order of `labels`, or new ones in their place if it `known` other names.

    `classifier`: the tensors that have a row for each class, by name, and on which axis. Returns the names of those
    made anew, by `renew`; one line says so. Another number of classes has a new classifier already.
    """
    if tuple(known) == tuple(labels) or len(known) != len(labels) or not classifier:
        return frozenset()
    if sorted(known) == sorted(labels) and len(set(known)) == len(known):
        places = {label: place for place, label in enumerate(known)}
        order = torch.tensor([places[label] for label in labels])
        with torch.no_grad():
            for tensor, axis in classifier.values():
                tensor.copy_(tensor.index_select(axis, order))
        return frozenset()
    say(
        f"model {name!r}: its classes ({_shown(known)}) are not those of the data ({_shown(labels)}); its classifier "
        "is made anew from --seed"
    )
    renew()
    return frozenset(classifier)


def with_a_row_a_class(tensors: Mapping[str, Tensor], larger: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, int]]:
    """The tensors with a row for each class, and on which axis: those that are `larger` for one class more."""
    return {
        key: (one, [mine == its for mine, its in zip(one.shape, larger[key].shape, strict=True)].index(False))
        for key, one in tensors.items()
        if one.shape != larger[key].shape
    }


def fit_labels(
    name: str, model: Any, known: Sequence[str], labels: Sequence[str], missing: frozenset[str], seed: int
) -> frozenset[str]:
    """`fit_rows` for a model of transformers; a layer that is `missing` from the checkpoint is new already."""
    if tuple(known) == tuple(labels) or len(known) != len(labels):
        return frozenset()
    config = deepcopy(model.config)
    config.num_labels = len(labels) + 1
    with torch.device("meta"):
        larger = type(model)(config)
    own = {key: one for key, one in model.named_parameters() if key not in missing}
    classifier = with_a_row_a_class(own, dict(larger.named_parameters()))
    return fit_rows(name, known, labels, classifier, lambda: _renew(model, list(classifier), seed))


def _renew(model: Any, keys: Sequence[str], seed: int) -> None:
    """Draw these parameters as the model draws new ones."""
    modules: list[Any] = [model.get_submodule(key.rpartition(".")[0]) for key in keys]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for module in dict.fromkeys(modules):
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
            for parameter in module.parameters(recurse=False):
                parameter._is_hf_initialized = False
            model._init_weights(module)


def _shown(names: Sequence[str]) -> str:
    more = len(names) - CLASSES_SHOWN
    return ", ".join(names[:CLASSES_SHOWN]) + (f" and {more} more" if more > 0 else "")
