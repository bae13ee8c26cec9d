"""A classifier's rows follow the names of its classes: permuted for another order, new for other names."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from recycle_cli.reports import say


def order_of(labels: Sequence[str], known: Sequence[str]) -> list[int] | None:
    """The place of each label among the known ones; None if they are other names."""
    if len(set(known)) < len(known) or set(labels) != set(known):
        return None
    places = {name: place for place, name in enumerate(known)}
    return [places[label] for label in labels]


def put_rows(
    model: nn.Module, order: Sequence[int] | None, keys: Sequence[str], new: Mapping[str, Tensor]
) -> frozenset[str]:
    """Put a classifier's rows (tensors `keys`) into an order, or new ones in their place; names of those that are new.

    `new`: tensors with at least as many rows.
    """
    tensors = model.state_dict()
    with torch.no_grad():
        for key in keys:
            own = tensors[key]
            own.copy_(new[key][: len(own)] if order is None else own[list(order)])
    return frozenset(keys) if order is None else frozenset()


def say_new(name: str, known: Sequence[str], labels: Sequence[str], seed: int) -> None:
    """Tell that a classifier is not kept, since its classes have other names than the data's."""
    foreign = next((label for label in labels if label not in known), labels[0])
    say(
        f"{name}: its {len(labels)} classes have other names than the data's ({known[0]!r}, not {foreign!r}); "
        f"a new layer is made from --seed {seed}"
    )
