"""Give blocks that share weights their own: a trunk cannot stand still in weights that a head trains."""

from copy import deepcopy
from typing import Any

from torch import nn


def untie_blocks(model: Any) -> None:
    """Give each of ALBERT's blocks its own copy of its group; the outputs and the kind of checkpoint stay the same.

    The config counts the groups, so that the saved checkpoint is an ordinary ALBERT with as many groups as blocks.
    """
    config = model.config
    groups = getattr(config, "num_hidden_groups", None)
    if groups is None or groups == config.num_hidden_layers:
        return
    for module in model.modules():
        for name, shared in module.named_children():
            if isinstance(shared, nn.ModuleList) and len(shared) == groups and name.endswith("groups"):
                share = config.num_hidden_layers / groups
                own = [deepcopy(shared[int(number / share)]) for number in range(config.num_hidden_layers)]
                setattr(module, name, nn.ModuleList(own))
    config.num_hidden_groups = config.num_hidden_layers
