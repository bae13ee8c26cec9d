"""The layer that makes an embedding: put in a classifier's place to train, and a plain linear layer once saved."""

from typing import Any

import torch
from torch import Tensor, nn

from recycle_cli.errors import ModelError, UsageError
from recycle_cli.settings import EmbeddingSettings

GATE = -4.0
"""sigmoid(-4) = 0.018: the vectors begin all but as they come in."""


class EmbeddingLayer(nn.Module):
    """Vectors (B, in_features) to vectors (B, out_features), not normalised; in eval an affine map."""

    linear: nn.Linear

    def merged(self) -> nn.Linear:
        """The one linear layer that computes the same in eval."""
        raise NotImplementedError


class LinearEmbedding(EmbeddingLayer):
    """y = W drop(x) + b."""

    def __init__(self, linear: nn.Linear, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout, self.linear = nn.Dropout(dropout), linear

    def forward(self, x: Tensor) -> Tensor:
        """Vectors to vectors."""
        y: Tensor = self.linear(self.dropout(x))
        return y

    def merged(self) -> nn.Linear:
        """The layer itself."""
        return self.linear


class SkipEmbedding(EmbeddingLayer):
    """y = x' + sigmoid(g) * (W drop(x') + b), x' = drop(x): nearly x at first, and training moves it away.

    Source: Quaterion's SkipConnectionHead.
    """

    def __init__(self, width: int, dropout: float, skip_dropout: float) -> None:
        super().__init__()
        self.dropout, self.skip_dropout = nn.Dropout(dropout), nn.Dropout(skip_dropout)
        self.linear = nn.Linear(width, width)
        self.gate = nn.Parameter(torch.full((1,), GATE))

    def forward(self, x: Tensor) -> Tensor:
        """Vectors to vectors of the same width."""
        x = self.dropout(x)
        y: Tensor = x + torch.sigmoid(self.gate) * self.linear(self.skip_dropout(x))
        return y

    def merged(self) -> nn.Linear:
        """W' = 1 + sigmoid(g) W, b' = sigmoid(g) b."""
        width = self.linear.in_features
        one = nn.Linear(width, width, device=self.gate.device)
        with torch.no_grad():
            share = torch.sigmoid(self.gate)
            one.weight.copy_(torch.eye(width, device=share.device) + share * self.linear.weight)
            one.bias.copy_(share * self.linear.bias)
        return one


def new_embedding(width: int, settings: EmbeddingSettings, seed: int) -> EmbeddingLayer:
    """A new layer for vectors of this width, in eval. Raises UsageError for a skip connection to another width."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _new(width, settings).eval()


def _new(width: int, settings: EmbeddingSettings) -> EmbeddingLayer:
    if settings.kind == "skip":
        if settings.size not in (None, width):
            raise UsageError(
                f"--embedding-size {settings.size}: a skip connection keeps the width, which is {width} here; "
                "leave the option out, or add --embedding linear"
            )
        return SkipEmbedding(width, settings.dropout, settings.skip_dropout)
    return LinearEmbedding(nn.Linear(width, settings.size or width), settings.dropout)


def put_embedding(model: nn.Module, settings: EmbeddingSettings, classes: int, seed: int) -> tuple[str, int]:
    """Put a new layer in the place of the linear layer that scores `classes`; returns its name and number of outputs.

    It is made from `seed`. Raises ModelError for a model that does not end with a linear layer.
    """
    name, linear = last_layer(model)
    if linear is None or linear.out_features != classes:
        raise ModelError(
            f"{type(model).__name__} cannot learn an embedding: its last layer with weights ({name}) is no linear "
            "layer of its scores; take another architecture"
        )
    layer = new_embedding(linear.in_features, settings, seed)
    _put(model, name, layer)
    return name, layer.linear.out_features


def merge_embedding(model: nn.Module) -> None:
    """Replace embedding layers by plain linear ones, so that the model is an ordinary one of its class again."""
    for name, module in list(model.named_modules()):
        if isinstance(module, EmbeddingLayer):
            _put(model, name, module.merged())


def parameters_below(model: nn.Module, name: str) -> frozenset[str]:
    """Full names of the parameters of one of the model's modules."""
    return frozenset(f"{name}.{key}" for key, _ in model.get_submodule(name).named_parameters())


def numbered(size: int) -> tuple[str, ...]:
    """Names for the numbers of a vector, for a model that wants a name for each of its outputs."""
    return tuple(map(str, range(size)))


def last_layer(model: nn.Module) -> tuple[str, nn.Linear | None]:
    """The last module that has parameters of its own, by its name; None in its place if it is no linear layer."""
    own = [(name, one) for name, one in model.named_modules() if next(one.parameters(recurse=False), None) is not None]
    name, module = own[-1]
    return name, module if isinstance(module, nn.Linear) else None


def _put(model: nn.Module, name: str, module: Any) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
