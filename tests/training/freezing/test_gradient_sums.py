"""Gradients of an interval are summed, and their norms are those of a layer, not of a tensor."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from recycle_cli.training.freezing.gradient_sums import GradientSums


@pytest.fixture
def layers():
    """Two layers: a matrix and a vector, and a vector alone."""
    weights = {name: nn.Parameter(torch.zeros(size)) for name, size in (("a", (1, 2)), ("b", 2), ("c", 2))}
    return SimpleNamespace(weights=[{"a": weights["a"], "b": weights["b"]}, {"c": weights["c"]}])


def step(layers, a, b, c):
    (first, second) = layers.weights
    for weight, gradient in zip((first["a"], first["b"], second["c"]), (a, b, c), strict=True):
        weight.grad = torch.tensor(gradient).reshape(weight.shape)


@pytest.mark.parametrize(
    ("norm", "expected"),
    [
        # a: (2, 4) / 2 + (2, 1) / 1 = (3, 3); b: (0, 2) / 2 + (-4, 0) = (-4, 1); c: (8, 0) / 2 + (-4, 0) = (0, 0)
        ("l1", [6 + 5, 0]),
        ("l2", [(9 + 9 + 16 + 1) ** 0.5, 0]),
    ],
)
def test_the_gradients_of_two_steps_cancel_or_add_up(layers, norm, expected):
    """Losses were summed: the weight of the first step is 2, so that its gradients count half."""
    sums = GradientSums(layers, norm)
    step(layers, [2.0, 4.0], [0.0, 2.0], [8.0, 0.0])
    sums.add(2.0)
    step(layers, [2.0, 1.0], [-4.0, 0.0], [-4.0, 0.0])
    sums.add(1.0)
    assert sums.norms() == pytest.approx(expected)


def test_frozen_layers_take_no_memory_and_a_checkpoint_has_the_rest(layers):
    sums = GradientSums(layers, "l2")
    step(layers, [3.0, 0.0], [0.0, 4.0], [1.0, 0.0])
    sums.add(1.0)
    assert sums.norms() == pytest.approx([5.0, 1.0])
    kept = {name: one.clone() for name, one in sums.tensors.items()}
    again = GradientSums(layers, "l2")
    again.load(kept)
    assert again.norms() == sums.norms()
    sums.drop(["a", "b"])
    assert sums.norms() == [0.0, 1.0]
    assert list(sums.tensors) == ["freezing.c"]
    sums.reset()
    assert not sums.tensors
    for weight in layers.weights[0].values():
        weight.grad = None
    layers.weights[1]["c"].grad = None
    sums.add(1.0)  # nothing trains any more
    step(layers, [1.0, 0.0], [0.0, 0.0], [math.inf, 0.0])
    sums.add(1.0, scaled=True)
    assert sums.norms() == [0.0, 0.0]
