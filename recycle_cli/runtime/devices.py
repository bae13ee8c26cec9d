"""Where the model computes and in which precision."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

import torch

from recycle_cli.errors import UsageError

T = TypeVar("T")

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

CPU_BATCH_TOKENS = 4096
"""Measured best on two cores (docs/performance.md): larger batches fall out of the caches."""

ACCELERATOR_BATCH_TOKENS = 32768
"""Not measured: enough rows that a large accelerator is busy with a model of the size of BERT."""


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


def device_holding(model: torch.nn.Module) -> torch.device:
    """The device that a model's parameters are on."""
    return next(model.parameters()).device


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Mixed precision around a forward pass; float32 switches it off, within another one too."""
    if precision not in PRECISIONS:
        raise UsageError(f"--precision {precision} is not known; take one of {', '.join(PRECISIONS)}")
    if precision == "float32":
        return torch.autocast(device.type, enabled=False)
    return torch.autocast(device.type, dtype=PRECISIONS[precision])


def batch_tokens_on(device: torch.device, asked: int | None) -> int:
    """Padded tokens a batch: as asked for, or what suits the device."""
    if asked is not None:
        return asked
    return CPU_BATCH_TOKENS if device.type == "cpu" else ACCELERATOR_BATCH_TOKENS


def pinned(
    batches: Iterable[tuple[T, dict[str, torch.Tensor]]], device: torch.device
) -> Iterator[tuple[T, dict[str, torch.Tensor]]]:
    """The same batches in memory that a CUDA device copies from while it computes; on other devices as they are."""
    for members, batch in batches:
        yield members, pinned_for(batch, device)


def pinned_for(tensors: dict[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    """The same tensors in pinned memory, where the device is CUDA's."""
    if device.type != "cuda":
        return tensors
    return {name: tensor.pin_memory() for name, tensor in tensors.items()}


class Fetching:
    """Results brought back from a CUDA device on a stream of their own, so that the next batch computes meanwhile.

    On other devices there is nothing to wait for.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def ready(self) -> torch.cuda.Event | None:
        """A mark behind what the device has been given so far; taken in the thread that gave it."""
        return None if self._stream is None else torch.cuda.current_stream(self._stream.device).record_event()

    @contextmanager
    def after(self, mark: torch.cuda.Event | None) -> Iterator[None]:
        """Work in this block waits for the mark alone, not for what the device was given since."""
        if self._stream is None or mark is None:
            yield
            return
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(mark)
            yield
        # What was read must not be freed for the next batch before it has been read.
        self._stream.synchronize()


def to_device(tensors: dict[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    """The same tensors on the device, copied without waiting where their memory is pinned."""
    return {name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()}
