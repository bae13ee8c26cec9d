"""Where the model computes and in which precision."""

from contextlib import AbstractContextManager

import torch

from recycle_cli.errors import UsageError

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def device_of(name: str) -> torch.device:
    """The device by name; `auto` takes CUDA, then Apple's MPS, then the CPU. Raises UsageError where there is none."""
    if name == "auto":
        return torch.device(
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"--device {name} cannot be used ({reason}); take cpu, or auto for the best there is"
        ) from error
    return device


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Mixed precision around a forward pass; float32 switches it off, within another one too."""
    if precision not in PRECISIONS:
        raise UsageError(f"--precision {precision} is not known; take one of {', '.join(PRECISIONS)}")
    if precision == "float32":
        return torch.autocast(device.type, enabled=False)
    return torch.autocast(device.type, dtype=PRECISIONS[precision])


def to_device(tensors: dict[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    """The same tensors on the device, copied without waiting where their memory is pinned."""
    return {name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()}
