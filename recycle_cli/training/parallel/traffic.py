"""What ranks send one another while they train: bytes and seconds."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import GradBucket


@dataclass
class Traffic:
    """What one rank has given to collectives since the last `take`.

    gradients  bytes of gradients; `outputs`: those of the head's outputs, with what is sent to bring them together
    seconds    in which gradients were on their way, most of them while others were computed; on a GPU they are not
               measured, which would keep it waiting
    """

    gradients: int = 0
    outputs: int = 0
    seconds: float = 0.0
    _flying: int = 0
    _since: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self) -> dict[str, float]:
        """What has gathered, as the log has it."""
        with self._lock:
            taken = {"gradient_bytes": self.gradients, "output_bytes": self.outputs, "gradient_seconds": self.seconds}
            self.gradients, self.outputs, self.seconds = 0, 0, 0.0
        return taken

    def begin(self, size: int) -> None:
        """So many bytes of gradients set out."""
        with self._lock:
            self.gradients += size
            if not self._flying:
                self._since = time.perf_counter()
            self._flying += 1

    def end(self) -> None:
        """One of those that have set out has arrived."""
        with self._lock:
            self._flying -= 1
            if not self._flying:
                self.seconds += time.perf_counter() - self._since


Seen = Callable[[GradBucket], None]


def summing(
    traffic: Traffic, idle: torch.nn.Parameter, seen: Seen | None = None
) -> Callable[[object, GradBucket], torch.futures.Future[torch.Tensor]]:
    """A hook for DDP that sums the gradients of all ranks, where DDP would average them, and counts what it sends.

    idle  a parameter that stands for none of the model's, and is not counted
    seen  is shown each bucket before that, with the gradients of this rank alone
    """

    def hook(state: object, bucket: GradBucket) -> torch.futures.Future[torch.Tensor]:
        if seen is not None:
            seen(bucket)
        buffer = bucket.buffer()
        numbers = sum(one.numel() for one in bucket.parameters() if one is not idle)
        traffic.begin(numbers * buffer.element_size())

        def arrived(future: torch.futures.Future[list[torch.Tensor]]) -> torch.Tensor:
            if buffer.device.type == "cpu":
                traffic.end()
            return future.value()[0]

        return dist.all_reduce(buffer, async_op=True).get_future().then(arrived)

    return hook
