"""The last layers of a model for tasks with an output for each text: its own classifier, or the pooled head."""

from collections.abc import Mapping, Sequence
from typing import Any

from recycle_cli.errors import UsageError
from recycle_cli.models import TaskLayer
from recycle_cli.settings import HeadLayerSettings, decisive
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
    if layers.kind != "ladder" and (idle := changed_options(layers.ladder)):
        raise UsageError(f"{', '.join(idle)}: only --head ladder has it; add that, or leave it out")
    if layers.kind != "mlp" and layers.pooling != USUAL.pooling:
        raise UsageError(f"--head-pooling {layers.pooling}: only --head mlp pools; add that, or leave it out")


def identity_of_layers(layers: HeadLayerSettings) -> dict[str, Any]:
    """The options that a resumed training must not change, and that predicting finds again; none for the usual ones."""
    if layers == USUAL:
        return {}
    if layers.kind == "ladder":
        return {"head": "ladder", **{f"ladder_{name}": value for name, value in decisive(layers.ladder).items()}}
    return {"head": layers.kind, "head_pooling": layers.pooling}


def layers_of_run(about: Mapping[str, Any]) -> HeadLayerSettings:
    """The layers of a RUN, from its `recycle.json`."""
    own = about.get("settings", {})
    return HeadLayerSettings(own.get("head", USUAL.kind), own.get("head_pooling", USUAL.pooling))
