"""Devices and precisions: where the model computes, and moving tensors there and back."""

import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

import torch

from recycle_cli.errors import UsageError

T = TypeVar("T")

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

CPU_BATCH_TOKENS = 2048
"""Within 6% of the fastest size that was measured on two cores, 1,024, for the sake of processors with more."""

ACCELERATOR_BATCH_TOKENS = 32768
"""An estimate, not measured: enough rows to keep a large accelerator busy with a model of BERT's size."""


def device_of(name: str) -> torch.device:
    """Open a device by name; `auto` tries CUDA, Apple's MPS, then the CPU; of several GPUs each process that torchrun
    started on a machine takes its own. Raises UsageError if it cannot be used."""
    if name == "auto" and torch.cuda.is_available():
        rank = os.environ.get("LOCAL_RANK")
        return torch.device("cuda") if rank is None else torch.device("cuda", int(rank) % torch.cuda.device_count())
    if name == "auto":
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
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
    """Mixed precision for a forward pass. float32 turns it off, also inside another autocast."""
    if precision not in PRECISIONS:
        raise UsageError(f"--precision {precision} is not known; take one of {', '.join(PRECISIONS)}")
    if precision == "float32":
        return torch.autocast(device.type, enabled=False)
    return torch.autocast(device.type, dtype=PRECISIONS[precision])


def batch_tokens_on(device: torch.device, asked: int | None) -> int:
    """Padded tokens a batch: `asked`, or if that is None the default for the device."""
    if asked is not None:
        return asked
    return CPU_BATCH_TOKENS if device.type == "cpu" else ACCELERATOR_BATCH_TOKENS


def pinned(
    batches: Iterable[tuple[T, dict[str, torch.Tensor]]], device: torch.device
) -> Iterator[tuple[T, dict[str, torch.Tensor]]]:
    """Move batches to pinned memory for a CUDA device, which then copies them while it computes; else leave them."""
    for members, batch in batches:
        yield members, pinned_for(batch, device)


def pinned_for(tensors: dict[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    """Move tensors to pinned memory if the device is a CUDA device, else return them as they are."""
    if device.type != "cuda":
        return tensors
    return {name: tensor.pin_memory() for name, tensor in tensors.items()}


class Fetching:
    """Copies results back from a CUDA device on a separate stream, while the next batch computes.

    On other devices it does nothing.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def ready(self) -> torch.cuda.Event | None:
        """Record an event after the work queued so far. Call it in the thread that queued the work."""
        return None if self._stream is None else torch.cuda.current_stream(self._stream.device).record_event()

    @contextmanager
    def after(self, mark: torch.cuda.Event | None) -> Iterator[None]:
        """Let the block wait only for the mark, not for work that was queued after it."""
        if self._stream is None or mark is None:
            yield
            return
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(mark)
            yield
        # Wait, so that the memory being copied is not reused for the next batch before the copy is done.
        self._stream.synchronize()


def to_device(tensors: dict[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    """Copy tensors to the device, without waiting for the copy if their memory is pinned."""
    return {name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()}
