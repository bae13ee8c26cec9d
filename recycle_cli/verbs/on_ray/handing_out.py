"""Hand out shards to workers until all are done: a shard whose worker ends is handed out again, but not for ever."""

import re
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from recycle_cli.errors import RecycleError, StorageError, WorkerError
from recycle_cli.reports import counted, say
from recycle_cli.settings import Shard
from recycle_cli.verbs.on_ray.cluster import Division, nodes_of
from recycle_cli.verbs.on_ray.messages import Done, Ready, Refused, Work
from recycle_cli.verbs.on_ray.worker import Worker

TRIES = 3
"""How often a shard is handed out if each time its worker ends or the storage fails: one record may be the cause."""

NODES_LOST = 20
"""How often if each time the worker's whole node is lost, which says nothing about the shard."""

PAUSE = 1.0
"""Seconds between two looks at how far the workers are."""

PATIENCE = 30.0
"""Seconds without a single worker after which a line says what is being waited for."""

SEALING_SECONDS = 120.0
"""How long workers that are asked to stop may take to seal what they have computed."""

_LONGEST = 200
"""Characters of a reason."""

_DETAIL = re.compile(r"Worker exit detail: (.*?)(?:[.] |$)")
"""The part of Ray's message that tells why a process ended."""


_ASIDE = "asides"
"""The thread of a worker that answers while another one computes."""


@dataclass
class _Hand:
    """A worker. `answer`: to what it was asked for, to open the model (`shard` None) or to fill a shard; None if it is
    idle. `ready`: what it said when the model was open. `count`: the answer to how many records it has done."""

    actor: Any
    answer: Any
    ready: Ready | None = None
    shard: Shard | None = None
    records: int = 0
    count: Any = None
    counted: float = 0.0


class HandingOut:
    """The driver's side of all workers.

    done         the shards that are in the store
    retried      how often each of some shards was handed out again
    nodes        Ray's ids of the machines on which workers have opened the model
    first_ready  when the first of them had, by time.monotonic
    """

    def __init__(self, ray: Any, division: Division, work: Work, shards: Sequence[Shard]) -> None:
        self._ray, self._division, self._work = ray, division, work
        self._waiting, self._total = deque(shards), len(shards)
        self._hands: list[_Hand] = []
        self._given_up: dict[Shard, str] = {}
        self._tries: Counter[Shard] = Counter()
        self._nodes_lost: Counter[Shard] = Counter()
        self._never_opened = 0
        self._patient_until = time.monotonic() + PATIENCE
        self.done: dict[Shard, Done] = {}
        self.retried: Counter[Shard] = Counter()
        self.nodes: set[str] = set()
        self.first_ready = float("inf")
        remote = ray.remote(max_restarts=0, max_task_retries=0, concurrency_groups={_ASIDE: 1})
        self._actor = remote(Worker).options(num_cpus=division.cpus, num_gpus=division.gpus)

    def run(self, progress: Callable[[int, str], None]) -> None:
        """Hand out all shards. `progress` is called with the records that are done and a note.

        Raises the error that a worker ended a shard with, and WorkerError if shards were given up. What the workers
        have computed by then is sealed first, also if Interrupted is raised here.
        """
        try:
            while self._waiting or any(hand.shard is not None for hand in self._hands):
                self._engage()
                self._ask_for_counts()
                for ref in self._answers():
                    self._take(ref)
                progress(self._records(), f"{len(self.done)} of {self._total} shards, {self._workers()}")
        finally:
            self._stop()
        if self._given_up:
            raise WorkerError(self._said())

    def _engage(self) -> None:
        """Give shards to idle workers, and make workers if more can be used."""
        idle = [hand for hand in self._hands if hand.answer is None]
        for hand in idle[: len(self._waiting)]:
            hand.shard, hand.records = self._waiting.popleft(), 0
            hand.answer = hand.actor.fill.remote(hand.shard)
        opening = sum(hand.ready is None for hand in self._hands)
        for _ in range(min(self._division.workers - len(self._hands), len(self._waiting) - opening)):
            actor = self._actor.remote(self._work)
            self._hands.append(_Hand(actor, actor.open.remote()))

    def _ask_for_counts(self) -> None:
        now = time.monotonic()
        for hand in self._hands:
            if hand.shard is not None and hand.count is None and now - hand.counted > PAUSE:
                hand.count = hand.actor.records.options(concurrency_group=_ASIDE).remote()
                hand.counted = now
        if not self.nodes and now > self._patient_until:
            self._patient_until = float("inf")
            gpus = f" and {self._division.gpus:g} of a GPU" if self._division.gpus else ""
            say(f"no worker is ready yet; each needs {counted(self._division.cpus, 'CPU')}{gpus} of a node of Ray")

    def _answers(self) -> list[Any]:
        asked = [ref for hand in self._hands for ref in (hand.answer, hand.count) if ref is not None]
        found: list[Any] = self._ray.wait(asked, num_returns=1, timeout=PAUSE)[0]
        return found

    def _take(self, ref: Any) -> None:
        """Take an answer."""
        hand = next(hand for hand in self._hands if ref in (hand.answer, hand.count))
        try:
            answer = self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            self._lost(hand, _reason(error))
            return
        if ref == hand.count:
            hand.count, hand.records = None, answer
        elif isinstance(answer, Refused):
            self._refused(hand, answer.error)
        else:
            self._finished(hand, answer)

    def _finished(self, hand: _Hand, answer: Ready | Done) -> None:
        if isinstance(answer, Ready):
            hand.ready = answer
            self.first_ready = min(self.first_ready, time.monotonic())
            self.nodes.add(answer.node)
        else:
            assert hand.shard is not None, "counts of no shard"
            self.done[hand.shard] = answer
        hand.shard = hand.answer = None

    def _refused(self, hand: _Hand, error: RecycleError) -> None:
        """Raise the error, but if the storage has failed, which may pass, hand out the shard again."""
        if hand.shard is None or not isinstance(error, StorageError) or self._tries[hand.shard] + 1 >= TRIES:
            raise error
        self._again(hand.shard, self._tries, str(error))
        hand.shard = hand.answer = None

    def _lost(self, hand: _Hand, reason: str) -> None:
        """A worker has ended, or its code has failed. Its shard is handed out again, or given up at last."""
        self._hands.remove(hand)
        self._ray.kill(hand.actor)
        if hand.ready is None:
            self._never_opened += 1
            if self._never_opened >= TRIES and not any(one.ready for one in self._hands):
                raise WorkerError(f"{self._never_opened} workers ended before they had opened the model: {reason}")
        elif hand.shard is not None:
            is_node_there = hand.ready.node in [node["NodeID"] for node in nodes_of(self._ray)]
            counts, most = (self._tries, TRIES) if is_node_there else (self._nodes_lost, NODES_LOST)
            if counts[hand.shard] + 1 < most:
                self._again(hand.shard, counts, f"process {hand.ready.pid} on {hand.ready.host} was lost ({reason})")
            else:
                self._given_up[hand.shard] = reason
                say(f"shard {hand.shard} is given up: each of its {most} workers was lost ({reason})")

    def _again(self, shard: Shard, counts: Counter[Shard], reason: str) -> None:
        counts[shard] += 1
        self.retried[shard] += 1
        self._waiting.append(shard)
        say(f"shard {shard} is handed out again: {reason}")

    def _stop(self) -> None:
        """Let the workers seal what they have computed, if they are at work, and end them."""
        filling = [hand for hand in self._hands if hand.shard is not None]
        for hand in filling:
            hand.actor.stop.options(concurrency_group=_ASIDE).remote()
        if filling:
            answers = [hand.answer for hand in filling]
            self._ray.wait(answers, num_returns=len(answers), timeout=SEALING_SECONDS)
        for hand in self._hands:
            self._ray.kill(hand.actor)
        self._hands.clear()

    def _records(self) -> int:
        """Records of the shards that are done, and of those at work as far as their workers are known to be."""
        finished = sum(one.report.samples for one in self.done.values())
        return finished + sum(hand.records for hand in self._hands if hand.shard is not None)

    def _workers(self) -> str:
        return counted(sum(hand.ready is not None for hand in self._hands), "worker")

    def _said(self) -> str:
        given_up = "; ".join(f"{shard} ({reason})" for shard, reason in self._given_up.items())
        first = next(iter(self._given_up))
        return (
            f"{counted(len(self._given_up), 'shard')} of {self._total} given up: {given_up}. All others are in the "
            f"store. To see why, give the same command with --shard {first} in place of --engine ray"
        )


def _reason(error: Exception) -> str:
    """Why a worker was lost, in one line, from an error of Ray."""
    cause = getattr(error, "cause", None)
    if cause is not None:
        return f"{type(cause).__name__}: {' '.join(str(cause).split())}"[:_LONGEST]
    text = " ".join(str(error).split())
    found = _DETAIL.search(text)
    return (found[1] if found else text)[:_LONGEST]
