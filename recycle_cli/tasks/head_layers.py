"""The last layers of a model for tasks with an output for each text: its own classifier, or the pooled head."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from recycle_cli.errors import UsageError
from recycle_cli.models import TaskLayer
from recycle_cli.models.ladder import FORMAT
from recycle_cli.settings import HeadLayerSettings, PooledSettings, decisive
from recycle_cli.settings.option import changed_options

USUAL = HeadLayerSettings()


def layer_of(problem: str, names: Sequence[str], layers: HeadLayerSettings) -> TaskLayer:
    """The layer for these outputs."""
    return TaskLayer(problem, tuple(names), pooled=layers.pooling if layers.kind == "mlp" else None)


def check_layers(layers: HeadLayerSettings, modality: str, task: str, *, pools: bool) -> None:
    """Raise UsageError for a pooled head on images or for a `task` that does not pool, and for options of another head.

    pools  whether the task has one output a sample, of which a pooled head may be the last layer
    """
    if layers.kind == "mlp" and modality != "text":
        raise UsageError("--head mlp pools the tokens of texts; leave it out")
    if layers.kind == "mlp" and not pools:
        raise UsageError(f"--head mlp: --task {task} has no pooled head; leave it out")
    for kind, own in (("ladder", layers.ladder), ("pooled", layers.pooled)):
        if layers.kind != kind and (idle := changed_options(own)):
            raise UsageError(f"{', '.join(idle)}: only --head {kind} has it; add that, or leave it out")
    if not layers.reads_states and layers.save != USUAL.save:
        raise UsageError(f"--save {layers.save}: only --head ladder and pooled have it; add one, or leave it out")
    if layers.kind != "mlp" and layers.pooling != USUAL.pooling:
        raise UsageError(f"--head-pooling {layers.pooling}: only --head mlp pools; add that, or leave it out")


def check_pooled(layers: HeadLayerSettings, modality: str, task: str, layer: TaskLayer) -> None:
    """Raise UsageError for a pooled head of a `task` with an output for each row, whose last layer is `layer`, and for
    its options that could have no effect."""
    if layers.kind != "pooled":
        return
    own = layers.pooled
    if layer.per_row:
        raise UsageError(
            f"--head pooled gives one output a sample, --task {task} wants one for each row; use --head ladder"
        )
    if modality == "image" and "last" in own.pool:
        raise UsageError("--pool last: an image has no last place; leave it out")
    solving = changed_options(replace(own, pool=(), hidden=None, dropout=PooledSettings.dropout))
    if (own.hidden is not None or layer.embeds) and solving:
        why = "--pooled-hidden" if own.hidden is not None else f"--task {task}"
        raise UsageError(f"{', '.join(solving)}: only a linear head that is solved has it; leave it out with {why}")
    if own.hidden is None and own.dropout != PooledSettings.dropout:
        raise UsageError("--pooled-dropout: a linear head has none; add --pooled-hidden, or leave it out")


def identity_of_layers(layers: HeadLayerSettings) -> dict[str, Any]:
    """The options that a resumed training must not change, and that predicting finds again; none for the usual ones."""
    if layers == USUAL:
        return {}
    if layers.kind == "ladder":
        own = {**decisive(layers.ladder), "format": FORMAT}
        return {"head": "ladder", **{f"ladder_{name}": value for name, value in own.items()}}
    if layers.kind == "pooled":
        own = {**decisive(layers.pooled), "pool": list(layers.pooled.pool)}
        return {"head": "pooled", **{f"pooled_{name}": value for name, value in own.items()}}
    return {"head": layers.kind, "head_pooling": layers.pooling}


def layers_of_run(about: Mapping[str, Any]) -> HeadLayerSettings:
    """The layers of a RUN, from its `recycle.json`."""
    own = about.get("settings", {})
    return HeadLayerSettings(own.get("head", USUAL.kind), own.get("head_pooling", USUAL.pooling))
