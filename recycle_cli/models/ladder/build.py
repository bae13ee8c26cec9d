"""A new ladder for a task, and one that is saved in a RUN with what it needs to be loaded again."""

import json
import shutil
from collections.abc import Mapping
from copy import copy
from dataclasses import asdict, dataclass
from inspect import getfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from recycle_cli.errors import StoreError
from recycle_cli.models.embedding import EmbeddingLayer, new_embedding, numbered
from recycle_cli.models.ladder.layout import Layout
from recycle_cli.models.ladder.network import Ladder, Shape
from recycle_cli.models.task_layer import TaskLayer
from recycle_cli.settings import LadderSettings

FOLDER, ABOUT, CODE = "ladder", "base.json", "ladder.py"

NARROWER = 3
"""How many times as wide as a ladder's the rows are that it reads, by default."""

QUERIES = 4
"""Weighted means beside the plain one, for tasks with one output a sample: what matters may be a few rows of a text."""

STEP = 32
"""The width is a multiple of this by default, so that its attention has heads of this width."""

LEAST_DEVIATION = 1e-2
"""The least standard deviation of a channel, as a share of the mean of its state's: one may be the same everywhere."""


@dataclass(frozen=True)
class Base:
    """The pretrained model whose states a ladder reads: how it is found again, and by what it is known to be the same.

    provenance  its name, revision, weights and transform, as a store keeps them
    recipe      all that decides its rows at the cuts of the ladder, with digests of its weights up to each
    row_shapes  of a row at each of these cuts
    labels      a name for each output of the ladder
    whole       whether the RUN has the model itself, in its folder `base`
    """

    provenance: Mapping[str, str]
    recipe: Mapping[str, Any]
    row_shapes: list[list[int]]
    labels: list[str]
    whole: bool = False

    @property
    def layout(self) -> Layout:
        """How its rows become states."""
        return Layout(tuple(map(tuple, self.row_shapes)))


def new_ladder(layer: TaskLayer, layout: Layout, settings: LadderSettings, seed: int) -> Ladder:
    """A ladder with random weights, made from `seed`, that ends with the layer of a task."""
    states = len(layout.shapes)
    width = settings.width or max(STEP, round(layout.width / NARROWER / STEP) * STEP)
    blocks = settings.blocks or max(1, states - 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if layer.head is not None:
            output = new_embedding(width, layer.head, seed)
            shape = Shape(states, layout.width, width, blocks, output.linear.out_features, hidden=False, dropout=0.0)
            ladder = Ladder(shape)
            ladder.output = output
            return ladder
        queries = 0 if layer.per_row else QUERIES
        return Ladder(
            Shape(states, layout.width, width, blocks, len(layer.labels or ()), layer.per_row, queries=queries)
        )


def labels_of(ladder: Ladder, layer: TaskLayer) -> list[str]:
    """A name for each output of a ladder."""
    return list(numbered(ladder.shape.outputs) if layer.embeds else layer.labels or ())


class Measure:
    """Counts rows of states, for the mean and the standard deviation of each channel of each."""

    def __init__(self) -> None:
        self._count, self._sum, self._squares = 0, torch.zeros(()), torch.zeros(())

    def add(self, states: Tensor, lengths: Tensor) -> None:
        """States (S, B, L, width) of some samples and their lengths (B,)."""
        inside = torch.arange(states.shape[2], device=states.device) < lengths[:, None]
        rows = states[:, inside].double().cpu()
        self._count += rows.shape[1]
        self._sum = self._sum + rows.sum(dim=1)
        self._squares = self._squares + rows.square().sum(dim=1)

    def put_into(self, ladder: Ladder) -> None:
        """Let a ladder standardise by them."""
        mean = self._sum / self._count
        deviation = (self._squares / self._count - mean.square()).clamp_min(0).sqrt()
        least = (LEAST_DEVIATION * deviation.mean(dim=1, keepdim=True)).clamp_min(1e-6)
        with torch.no_grad():
            ladder.mean.copy_(mean)
            ladder.deviation.copy_(torch.maximum(deviation, least))


def save_ladder(folder: Path, ladder: Ladder, base: Base) -> None:
    """Write a ladder into a RUN's folder, with what its pretrained model is, and the code that loads it without us."""
    target = folder / FOLDER
    target.mkdir(parents=True, exist_ok=True)
    plain = copy(ladder)
    plain._modules = dict(ladder._modules)
    if isinstance(ladder.output, EmbeddingLayer):
        plain.output = ladder.output.merged()
    plain.save(target)
    (target / ABOUT).write_text(json.dumps(asdict(base), indent=2) + "\n", encoding="utf-8")
    shutil.copyfile(getfile(Ladder), target / CODE)


def load_ladder(folder: Path) -> tuple[Ladder, Base]:
    """The ladder of a RUN, and the pretrained model that it was trained on. Raises StoreError if it is damaged."""
    target = folder / FOLDER
    try:
        base = Base(**json.loads((target / ABOUT).read_text(encoding="utf-8")))
        return Ladder.load(target).eval(), base
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        said = " ".join(str(error).split())
        raise StoreError(f"{target} is damaged ({said}); train the run again") from error
