"""Adapters on the layers of a text model's head: few weights train, and the head's own get no gradient at all.

Adapters on recycled layers are the best configuration of Embedding Recycling (EACL Findings 2023).
"""

from pathlib import Path

from torch import nn

from recycle_cli.models import AnyLoaded, LoadedReusing, SplitModel
from recycle_cli.models.adapters import bottleneck, lora
from recycle_cli.models.adapters.bottleneck import save_beside
from recycle_cli.models.adapters.lora import merge, save_apart
from recycle_cli.settings import AdapterSettings

__all__ = ["attach", "merge", "put_back", "save_apart", "save_beside"]


def attach(loaded: AnyLoaded, split: SplitModel, cut: str, settings: AdapterSettings) -> dict[str, nn.Parameter]:
    """Put adapters on the head and freeze the rest of it. Returns the parameters that now train, by name.

    Layers that the checkpoint lacks (the task layer) train whole. Raises UsageError if there is nothing to adapt.
    """
    new = dict(split.head_parameters(cut)).keys() & loaded.missing
    if settings.kind == "bottleneck":
        added = bottleneck.attach(split, cut, settings)
    else:
        added = lora.attach(loaded, split, cut, settings)
    for name, parameter in split.model.named_parameters():
        parameter.requires_grad_(name in new or name in added)
    return {name: parameter for name, parameter in split.model.named_parameters() if parameter.requires_grad}


def put_back(loaded: AnyLoaded, run: Path) -> None:
    """Turn the model of RUN/base into the trained one. Raises StoreError if what lies beside it is damaged."""
    if isinstance(loaded, LoadedReusing):
        loaded.put_back(run)
    else:
        bottleneck.put_back(loaded.model, run)
