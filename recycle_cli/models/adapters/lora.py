"""LoRA on the remaining layers: pretrained linear layers get low-rank updates (Hu et al., ICLR 2022), by `peft`."""

import importlib.util
import warnings
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from recycle_cli.errors import UsageError
from recycle_cli.models import AnyLoaded, Pooled, SplitModel
from recycle_cli.models.adapters.choice import chosen
from recycle_cli.settings import AdapterSettings

NAME = "recycle"
FOLDER = "adapter"


def attach(loaded: AnyLoaded, split: SplitModel, cut: str, settings: AdapterSettings) -> set[str]:
    """Put LoRA on the pretrained linear layers of the head. Returns the names of its parameters.

    Raises UsageError if `peft` is not installed, or the head has no such layer.
    """
    if importlib.util.find_spec("peft") is None:
        raise UsageError("--adapter lora needs the package peft; install it with `pip install 'recycle-cli[adapters]'`")
    from peft import LoraConfig, inject_adapter_in_model

    head = dict(split.head_parameters(cut))
    linear = {
        name: module
        for name, module in split.model.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
        and f"{name}.weight" in head
        and f"{name}.weight" not in loaded.missing
    }
    targets = chosen(list(linear), cut, settings)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=targets,
    )
    with warnings.catch_warnings():
        # peft warns for each layer of GPT-2's kind that it sets fan_in_fan_out by itself.
        warnings.filterwarnings("ignore", "fan_in_fan_out")
        inject_adapter_in_model(config, split.model, adapter_name=NAME)
    if not settings.dropout:
        for name in targets:
            if isinstance(linear[name], nn.Linear):
                _hasten(split.model.get_submodule(name))
    return {name for name, _ in split.model.named_parameters() if f".{NAME}." in name}


class LowRank(torch.autograd.Function):
    """x (W + s B A)' + b with W and b frozen: x (..., in), W (out, in), A (rank, in), B (out, rank).

    The same as `peft` computes, but the update is added to the weights and not to the outputs, and the gradients are
    computed from x A' and g B, so that one matrix product is the only pass over the outputs. The cheapest order of the
    products is from RunLoRA (Cherniuk et al., 2023).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(x, weight, a, b)
        ctx.scale = scale
        return nn.functional.linear(x, torch.addmm(weight, b, a, alpha=scale), bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, a, b = ctx.saved_tensors
        inputs, outputs = x.reshape(-1, x.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
        of_b = torch.mm(outputs.t(), inputs @ a.t()).mul_(ctx.scale)
        of_a = torch.mm((outputs @ b).t(), inputs).mul_(ctx.scale)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = (outputs @ torch.addmm(weight, b, a, alpha=ctx.scale)).view(x.shape)
        return of_x, None, None, of_a, of_b, None


def _hasten(layer: Any) -> None:
    """Let a layer of `peft` without dropout compute by `LowRank`.

    In mixed precision it computes as `peft` does, since small updates would be lost in the rounding of the sum.
    """
    usual = layer.forward

    def forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        base = self.base_layer
        if args or kwargs or self.merged or torch.is_autocast_enabled(x.device.type) or x.dtype != base.weight.dtype:
            return usual(x, *args, **kwargs)
        a, b = self.lora_A[NAME].weight, self.lora_B[NAME].weight
        return LowRank.apply(x, base.weight, base.bias, a, b, self.scaling[NAME])

    layer.__dict__["forward"] = MethodType(forward, layer)


def save_apart(loaded: AnyLoaded, folder: Path) -> None:
    """Write the adapter alone into RUN/adapter, as `peft` reads it; the task layer is in the merged checkpoint.

    Names are those of the model that it adapts, which for an embedder is its encoder.
    """
    from peft import get_peft_model_state_dict

    target = folder / FOLDER
    target.mkdir(exist_ok=True)
    tensors = get_peft_model_state_dict(loaded.model, adapter_name=NAME)
    around = "encoder." if isinstance(loaded.model, Pooled) else ""
    named = {f"base_model.model.{name.removeprefix(around)}": tensor.contiguous() for name, tensor in tensors.items()}
    save_file(named, target / "adapter_model.safetensors", {"format": "pt"})
    config = loaded.model.peft_config[NAME]
    config.base_model_name_or_path = loaded.name
    config.target_modules = sorted(name.removeprefix(around) for name, _ in _adapted(loaded.model))
    config.save_pretrained(target)


def merge(model: nn.Module) -> None:
    """Fold every adapter into its layer, so that the model is an ordinary checkpoint again."""
    for name, module in _adapted(model):
        module.merge()
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, module.get_base_layer())
    if hasattr(model, "peft_config"):
        del model.peft_config


def _adapted(model: nn.Module) -> list[tuple[str, Any]]:
    """The layers that have an adapter, with their names."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [(name, module) for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)]
