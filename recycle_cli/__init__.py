"""Run the frozen half of a pretrained network once, then train and predict from its stored activations.

The commands as functions: `precompute`, `finetune`, `finetune_heads`, `predict`; their options are the dataclasses in
`recycle_cli.settings`. `Store` and `Activations` read a store. What is named here is loaded when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recycle_cli.dataset import Activations
    from recycle_cli.store import Store
    from recycle_cli.verbs.finetune import finetune, finetune_heads
    from recycle_cli.verbs.precompute import precompute
    from recycle_cli.verbs.predict import predict

__version__ = "0.1.0"

__all__ = ["Activations", "Store", "__version__", "finetune", "finetune_heads", "precompute", "predict"]

_HOMES = {
    "Activations": "dataset",
    "Store": "store",
    "finetune": "verbs.finetune",
    "finetune_heads": "verbs.finetune",
    "precompute": "verbs.precompute",
    "predict": "verbs.predict",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
