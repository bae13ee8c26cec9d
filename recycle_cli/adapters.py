"""LoRA on the remaining layers: pretrained linear layers get low-rank updates, new layers train whole.

Frozen weights of the head get no gradient at all, which is what makes a step cheaper. Source: LoRA (Hu et al., ICLR
2022) by `peft`; adapters on recycled layers are the best configuration of Embedding Recycling (EACL Findings 2023).
"""

import importlib.util
from pathlib import Path

from safetensors.torch import save_file
from torch import nn

from recycle_cli.errors import UsageError
from recycle_cli.models import AnyLoaded, SplitModel
from recycle_cli.settings import AdapterSettings

NAME = "recycle"
FOLDER = "adapter"


def attach(loaded: AnyLoaded, split: SplitModel, cut: str, settings: AdapterSettings) -> dict[str, nn.Parameter]:
    """Put LoRA on each pretrained linear layer of the head; the named parameters that now train.

    Layers that the checkpoint lacks (the task layer) train whole. Raises UsageError where `peft` is not installed, or
    the head has no pretrained linear layer.
    """
    if importlib.util.find_spec("peft") is None:
        raise UsageError("--adapter lora needs the package peft; install it with `pip install 'recycle-cli[adapters]'`")
    from peft import LoraConfig, inject_adapter_in_model

    head = dict(split.head_parameters(cut))
    linear = [
        name
        for name, module in split.model.named_modules()
        if isinstance(module, nn.Linear) and f"{name}.weight" in head and f"{name}.weight" not in loaded.missing
    ]
    if not linear:
        raise UsageError(f"--adapter lora: at cut {cut} the head has no pretrained layer to adapt; take a lower cut")
    config = LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout, target_modules=linear
    )
    inject_adapter_in_model(config, split.model, adapter_name=NAME)
    new = head.keys() & loaded.missing
    for name, parameter in split.model.named_parameters():
        parameter.requires_grad_(name in new or f".{NAME}." in name)
    return {name: parameter for name, parameter in split.model.named_parameters() if parameter.requires_grad}


def save_apart(loaded: AnyLoaded, folder: Path) -> None:
    """Write the adapter alone as `peft` reads it, into RUN/adapter; the task layer is in the merged checkpoint."""
    from peft import get_peft_model_state_dict

    target = folder / FOLDER
    target.mkdir(exist_ok=True)
    tensors = get_peft_model_state_dict(loaded.model, adapter_name=NAME)
    named = {f"base_model.model.{name}": tensor.contiguous() for name, tensor in tensors.items()}
    save_file(named, target / "adapter_model.safetensors", {"format": "pt"})
    config = loaded.model.peft_config[NAME]
    config.base_model_name_or_path = loaded.name
    config.save_pretrained(target)


def merge(model: nn.Module) -> None:
    """Fold every adapter into its layer, so that the model is an ordinary checkpoint again."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, module.get_base_layer())
    if hasattr(model, "peft_config"):
        del model.peft_config
