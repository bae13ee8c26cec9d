"""A worker on a Ray cluster: the precompute of one process, a shard after another, with a writer of its own."""

import importlib
import os
import socket
from typing import TYPE_CHECKING

from recycle_cli import __version__
from recycle_cli.errors import Interrupted, MismatchError, RecycleError
from recycle_cli.reports import Bar, be_quiet
from recycle_cli.runtime.threads import leave_room
from recycle_cli.settings import Shard
from recycle_cli.verbs.on_ray.messages import Done, Ready, Refused, Stopped, Work

if TYPE_CHECKING:
    from recycle_cli.verbs.on_ray.shard_filling import ShardFilling


class Counted(Bar):
    """Counts the records of a shard for the driver. Raises Interrupted if the worker is to stop."""

    def __init__(self) -> None:
        self.records = 0
        self.stopping = False

    def update(self, advance: int = 0, *, note: str | None = None, total: int | None = None) -> None:
        self.records += advance
        if self.stopping:
            raise Interrupted


class Worker:
    """An actor. `open` comes first; `records` and `stop` are answered while `fill` is at work."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._host = socket.gethostname()
        self._counted = Counted()
        self._filling: ShardFilling | None = None

    def open(self) -> Ready | Refused:
        """Load the model, and compare it and the store with what the driver has."""
        be_quiet(True)
        leave_room()
        # Ray sets it to the CPUs of an actor only if the node does not.
        os.environ["OMP_NUM_THREADS"] = os.environ["RAYON_NUM_THREADS"] = str(self._work.threads)
        try:
            if __version__ != self._work.version:
                raise MismatchError(
                    f"recycle {__version__} is installed, and {self._work.version} where the command was given; "
                    "install the same version on every node"
                )
            # Not at the top: it loads PyTorch, which reads the number of threads when it is loaded.
            module = importlib.import_module("recycle_cli.verbs.on_ray.shard_filling")
            self._filling = module.open_shard_filling(self._work)
        except RecycleError as error:
            return self._refused(error)
        context = importlib.import_module("ray").get_runtime_context()
        return Ready(self._host, context.get_node_id(), os.getpid())

    def fill(self, shard: Shard) -> Done | Refused | Stopped:
        """Add to the store what it lacks of a shard."""
        assert self._filling is not None, "fill before open"
        self._counted.records = 0
        try:
            return self._filling.fill(shard, self._counted)
        except RecycleError as error:
            return self._refused(error)
        except Interrupted:
            return Stopped()

    def records(self) -> int:
        """Records of the shard at work that are done."""
        return self._counted.records

    def stop(self) -> None:
        """Let `fill` end at the next batch."""
        self._counted.stopping = True

    def _refused(self, error: RecycleError) -> Refused:
        return Refused(type(error)(f"on {self._host}: {error}"))
