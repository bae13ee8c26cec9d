"""The queue before a computing thread: counted in tokens, taken by budget, never waited for."""

import threading
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from itertools import islice
from time import perf_counter

import numpy as np

from recycle_cli.errors import RecycleError
from recycle_cli.runtime.memory import give_back_memory
from recycle_cli.serve.batch_costs import BatchCosts, of_like_lengths
from recycle_cli.serve.jobs import Computing, Part
from recycle_cli.trunk import by_token_budget

LOOK_AHEAD = 512
"""Parts from which a batch is chosen: those of like lengths go together."""


_TIDY_SECONDS = 10.0
"""After so long, and a batch, freed memory is given back to the system."""


class OverloadedError(RecycleError):
    """More tokens would wait than may. `seconds`: after which it is worth trying again."""

    def __init__(self, seconds: int) -> None:
        super().__init__("too much waits to be computed; try again later")
        self.seconds = seconds


class Queue:
    """Parts that wait for one thread, which takes as many as fit `batch_tokens` whenever it is free.

    work        computes a batch; whatever it raises is its own fault, since it answers for each part
    most        tokens that may wait; None for no limit. One request alone is always taken
    told        called with the parts and the padded tokens of each batch
    dropped     called with parts that nobody waits for any more; returns those that somebody has joined meanwhile
    """

    def __init__(
        self,
        name: str,
        work: Callable[[list[Part]], None],
        batch_tokens: int,
        most: int | None,
        told: Callable[[int, int], None],
        dropped: Callable[[Sequence[Part]], Sequence[Part]],
    ) -> None:
        self._work, self._budget, self._most, self._told, self._dropped = work, batch_tokens, most, told, dropped
        self._waiting: deque[Part] = deque()
        self._changed = threading.Condition()
        self._ending = False
        self.tokens = 0
        self._speed = 1000.0
        self._costs: defaultdict[Computing, BatchCosts] = defaultdict(BatchCosts)
        self._thread = threading.Thread(target=self._run, name=f"recycle-{name}", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread is at work."""
        return self._thread.is_alive()

    def put(self, parts: Sequence[Part]) -> None:
        """Let parts wait. Raises OverloadedError if too much waits before them."""
        cost = sum(part.cost for part in parts)
        with self._changed:
            if self._most is not None and self.tokens and self.tokens + cost > self._most:
                raise OverloadedError(self.seconds())
            self._waiting.extend(parts)
            self.tokens += cost
            self._changed.notify()

    def seconds(self) -> int:
        """How long what waits will take, by the speed of the last batches; at least 1."""
        return max(1, min(60, round(self.tokens / self._speed)))

    def close(self) -> None:
        """Compute what waits, and end the thread."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        tidied = perf_counter()
        while batch := self._take():
            began = perf_counter()
            self._work(batch)
            seconds = max(1e-6, perf_counter() - began)
            tokens = sum(part.cost for part in batch)
            self._costs[batch[0].group].note(_padded(batch), seconds)
            if began > tidied + _TIDY_SECONDS:
                tidied = began
                give_back_memory()
            self._speed += 0.2 * (tokens / seconds - self._speed)

    def _take(self) -> list[Part]:
        """The oldest part and those that fit beside it; empty at the end."""
        while True:
            with self._changed:
                while not self._waiting and not self._ending:
                    self._changed.wait()
                if not self._waiting:
                    return []
                ahead = list(islice(self._waiting, LOOK_AHEAD))
                gone = [part for part in ahead if part.gone]
                there = [part for part in ahead if not part.gone]
                chosen = self._chosen(there) if there else []
                removed = {id(part) for part in (*gone, *chosen)}
                for _ in ahead:
                    self._waiting.popleft()
                self._waiting.extendleft(part for part in reversed(ahead) if id(part) not in removed)
                self.tokens -= sum(part.cost for part in (*gone, *chosen))
            if gone and (back := self._dropped(gone)):
                with self._changed:
                    self._waiting.extend(back)
                    self.tokens += sum(part.cost for part in back)
            if chosen:
                self._told(len(chosen), _padded(chosen))
                return chosen

    def _chosen(self, there: list[Part]) -> list[Part]:
        """Of the parts with the oldest one's scorer the batch of like lengths that the oldest is in."""
        alike = [part for part in there if part.scorer is there[0].scorer]
        costs = np.array([part.cost for part in alike], dtype=np.int64)
        within = next(members for members in by_token_budget(costs, self._budget) if 0 in members)
        overhead = self._costs[there[0].group].overhead
        batch = next(within[some] for some in of_like_lengths(costs[within], overhead) if 0 in within[some])
        return [alike[place] for place in batch.tolist()]


def _padded(batch: Sequence[Part]) -> int:
    """Tokens of a batch, the padding included."""
    return len(batch) * max(part.cost for part in batch)
