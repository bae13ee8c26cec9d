"""What is served: RUNs by their names, two computing threads for all of them, and the way of a request through them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from recycle_cli.corpus import Example
from recycle_cli.errors import RecycleError, UsageError
from recycle_cli.keys import Sample
from recycle_cli.models.outputs import Outputs
from recycle_cli.scorer import LoadedRun
from recycle_cli.serve.group import Group
from recycle_cli.serve.jobs import Found, Job, Part
from recycle_cli.serve.metrics import Metrics
from recycle_cli.serve.queue import Queue
from recycle_cli.serve.records import Reading
from recycle_cli.serve.refusals import Refusal, refusal_of
from recycle_cli.settings import ServeSettings

T = TypeVar("T")

ROWS = "\0rows"
"""What follows the name of a RUN in its group's scorers, for its rows in place of its outputs."""

MOST_WAITING = 1 << 20
"""Tokens of misses that may wait: a few minutes of work on two cores."""

Gone = Callable[[], Awaitable[None]]
"""Waits until the client has gone."""


class ClientGone(Exception):  # noqa: N818 - nobody is left to be answered
    """The client has hung up."""


@dataclass(frozen=True)
class Served:
    """A RUN by the name that requests give it."""

    name: str
    group: Group
    run: LoadedRun
    reading: Reading

    @property
    def embeds(self) -> bool:
        """Whether its outputs are embeddings."""
        return self.run.task.layer(()).embeds

    @property
    def has_rows(self) -> bool:
        """Whether the rows of a text can be given."""
        return self.name + ROWS in self.group.misses.runs

    @property
    def classifies(self) -> bool:
        """Whether it scores classes."""
        names = self.run.names
        return bool(names) and {f"score_{name}" for name in names} <= set(self.run.task.columns(names))


@dataclass(frozen=True)
class Result:
    """What a request's samples gave: for each what was found, or why it cannot be used. `hits` were not computed."""

    found: list[Found | RecycleError]
    hits: int

    @property
    def tokens(self) -> int:
        """Of all samples that could be used."""
        return sum(one.tokens for one in self.found if isinstance(one, Found))

    @property
    def cut_off(self) -> list[int]:
        """The places of the samples whose texts are longer than the model takes."""
        return [place for place, one in enumerate(self.found) if isinstance(one, Found) and one.cut_off]


class Service:
    """RUNs behind their threads. `close` computes what waits, and ends them."""

    def __init__(self, served: Sequence[Served], settings: ServeSettings, batch_tokens: int, metrics: Metrics) -> None:
        self.served = {one.name: one for one in served}
        self.settings, self.metrics, self.batch_tokens = settings, metrics, batch_tokens
        self._groups = {id(one.group.misses): one.group for one in served}
        self.hits = Queue("hits", _compute, batch_tokens, None, metrics.batch("hit"), self._drop)
        self.misses = Queue("misses", _compute, batch_tokens, MOST_WAITING, metrics.batch("miss"), self._drop)
        self._finding = ThreadPoolExecutor(2, thread_name_prefix="recycle-finding")
        self._preparing = ThreadPoolExecutor(1, thread_name_prefix="recycle-preparing")
        metrics.watch(
            lambda: self.misses.tokens,
            lambda: sum(group.memory.used for group in self.groups),
            {one.name: partial(getattr, one.group, "store_bytes") for one in served},
        )

    @property
    def groups(self) -> list[Group]:
        """The recipes that are served."""
        return list(self._groups.values())

    @property
    def healthy(self) -> bool:
        """Whether requests can be answered."""
        return self.hits.alive and self.misses.alive and not any(group.unfit for group in self.groups)

    def find(self, name: str) -> Served:
        """The RUN of this name. Raises Refusal."""
        if name not in self.served:
            known = ", ".join(self.served)
            raise Refusal("NotFound", f"no model {name[:200]!r} here; served are {known}", "model", "model_not_found")
        return self.served[name]

    async def outputs(
        self,
        served: Sequence[Served],
        samples: Sequence[Sample],
        gone: Gone,
        *,
        truncate: bool = True,
        rows: bool = False,
        salt: str | None = None,
    ) -> Result:
        """The outputs of samples by RUNs of one group, or their `rows`. `salt`: of the tenant who asks.

        Raises ClientGone; Refusal if too much waits, or with `truncate` false for a text that is too long.
        """
        group, wanted = served[0].group, [one.name + (ROWS if rows else "") for one in served]
        job = Job(len(samples))
        begin = partial(group.begin, job, samples, wanted, self.hits, salt)
        await self._finished(job, begin, group, gone)
        result = Result([one for one in job.results if one is not None], job.hits)
        for one in served:
            self.metrics.samples(one.name, len(samples), job.hits)
        for found in result.found:
            if isinstance(found, RecycleError) and (refusal := refusal_of(found)).kind != "Validation":
                raise refusal
        if not truncate and (over := result.cut_off):
            raise Refusal(
                "Validation",
                f"input {over[0]} is longer than the {self.longest(served[0])} tokens that the model takes; shorten it "
                "or leave out truncate: false",
                "input",
            )
        return result

    async def _finished(self, job: Job, begin: Callable[[], list[Part]], group: Group, gone: Gone) -> None:
        """Find what can be found, let the rest be computed, and wait until all of it is there. Raises ClientGone, and
        Refusal if too much waits."""
        watching = asyncio.ensure_future(gone())
        try:
            if rest := await self.in_thread(begin):
                prepare = partial(group.prepare, rest, self.misses)
                await asyncio.get_running_loop().run_in_executor(self._preparing, prepare)
            await asyncio.wait({job.finished, watching}, return_when=asyncio.FIRST_COMPLETED)
            if not job.finished.done():
                raise ClientGone
        except RecycleError as error:
            raise refusal_of(error) from None
        finally:
            job.gone = True
            watching.cancel()

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Let a thread do it, beside the one that answers."""
        return await asyncio.get_running_loop().run_in_executor(self._finding, work)

    async def read(self, served: Served, values: Sequence[Any]) -> list[Example | RecycleError]:
        """The example of each input, or why it cannot be used."""

        def read() -> list[Example | RecycleError]:
            found: list[Example | RecycleError] = []
            for number, value in enumerate(values):
                try:
                    found.append(served.reading.example(value, number))
                except (RecycleError, RecursionError) as error:
                    found.append(error if isinstance(error, RecycleError) else UsageError("it is nested too deep"))
            return found

        return await self.in_thread(read)

    async def answers(self, served: Served, examples: Sequence[Example], outputs: Outputs) -> list[dict[str, Any]]:
        """A prediction an example, as `recycle predict` makes it, from the outputs of their samples."""

        def answer() -> list[dict[str, Any]]:
            with served.group.finding.lock:
                return served.run.answers(outputs, examples, lambda: served.group.finding.preprocessor)

        return await self.in_thread(answer)

    def longest(self, served: Served) -> int | None:
        """Tokens of a text at most; None for images."""
        inputs = served.group.finding.preprocessor
        return getattr(inputs, "max_length", None) if inputs.modality == "text" else None

    def _drop(self, parts: Sequence[Part]) -> list[Part]:
        back = [one for part in parts for one in part.group.drop([part])]
        self.metrics.dropped(len(parts) - len(back))
        return back

    def close(self) -> None:
        """Compute what waits, and end the threads."""
        self._preparing.shutdown()
        self._finding.shutdown()
        self.misses.close()
        self.hits.close()
        for group in self.groups:
            if group.keeping is not None:
                group.keeping.close()


def _compute(parts: list[Part]) -> None:
    parts[0].group.compute(parts)
