"""A new ladder for a task."""

import torch

from recycle_cli.models.embedding import new_embedding
from recycle_cli.models.ladder.layout import Layout
from recycle_cli.models.ladder.network import Ladder, Shape
from recycle_cli.models.task_layer import TaskLayer
from recycle_cli.settings import LadderSettings

NARROWER = 4
"""How many times as wide as a ladder's the rows are that it reads, by default."""

QUERIES = 4
"""Weighted means beside the plain one, for tasks with one output a sample: what matters may be a few rows of a text."""

STEP = 32
"""The width is a multiple of this by default, so that its attention has heads of this width."""


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
        # Tags were better with all states at the start, classes with the deepest one at the end (docs/notes.md).
        queries, together = (0, True) if layer.per_row else (QUERIES, False)
        sizes = (states, layout.width, width, blocks, len(layer.labels or ()), layer.per_row)
        return Ladder(Shape(*sizes, queries=queries, together=together))
