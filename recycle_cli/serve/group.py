"""RUNs of one recipe behind one trunk and one store: from samples to outputs, hits apart from misses."""

import threading
from collections.abc import Callable, Collection, Sequence

import numpy as np
import torch

from recycle_cli.batches import Indices
from recycle_cli.errors import DataError, GoneError, MismatchError, RecycleError, StoreError
from recycle_cli.keys import KEY_BYTES, Bytes16, Sample, contents_of, keys_of
from recycle_cli.scorer import Scorer
from recycle_cli.serve.jobs import Found, Job, Memory, Part
from recycle_cli.serve.keeping import Keeping
from recycle_cli.serve.locked import Locked
from recycle_cli.serve.queue import OverloadedError, Queue
from recycle_cli.trunk import TrunkBatch, Window, usable

SALT = "tenant"
"""The field by which the content of one tenant's samples differs from that of all others."""

Say = Callable[[str], None]

Each = dict[str, list[torch.Tensor]]
"""The outputs of each RUN, sample by sample."""


class ServerError(RecycleError):
    """The server's own fault: the client is not told more."""


class Group:
    """RUNs that share a trunk and a store.

    hits      computes from stored rows; a scorer of its own, so that it never waits for a batch of misses
    misses    computes from inputs
    keeping   takes the rows of misses for the store; None if it is only read
    large     names of outputs that are not worth keeping in memory
    unfit     why nothing is answered any more: the store has turned out not to be the trunk's

    Its two queues belong to the service, which hands it their batches.
    """

    def __init__(self, hits: Scorer | None, misses: Scorer, memory: Memory, say: Say, large: Collection[str]) -> None:
        self.hits, self.misses, self.memory, self.say, self.large = hits, misses, memory, say, frozenset(large)
        self.finding = Locked((hits or misses).preprocessor)
        self.preparing = Locked(misses.preprocessor)
        self.unfit: MismatchError | None = None
        self.keeping: Keeping | None = None
        self._underway: dict[bytes, Part] = {}
        self._lock = threading.Lock()

    @property
    def store_bytes(self) -> int:
        """Bytes of the store; 0 without one."""
        return 0 if self.hits is None or self.hits.store is None else self.hits.store.bytes

    def begin(
        self, job: Job, samples: Sequence[Sample], wanted: Collection[str], queue: Queue, salt: str | None = None
    ) -> list[Part]:
        """Find the samples of a request. What is in memory is answered at once, what the store holds waits in `queue`;
        returns the others, which must be prepared. With a `salt` all that is computed is known by content and salt,
        and only what the store was given without one is found by others. Raises StoreError if the store does not fit
        the trunk."""
        if self.unfit is not None:
            raise self.unfit
        plain = samples
        if salt is not None:
            samples = [Sample(one.id, {**one.fields, SALT: salt}) for one in plain]
        keys, digests = keys_of(samples)
        rest = self._not_remembered(job, keys, digests, wanted)
        if not rest:
            return []
        scorer, positions = self._positions(keys[rest], digests[rest])
        for_all = np.full(len(rest), -1, np.int64)
        if salt is not None:
            for_all = self._for_all(scorer, [plain[place] for place in rest])
        held: list[Part] = []
        missing: list[Part] = []
        for place, own, shared in zip(rest, positions.tolist(), for_all.tolist(), strict=True):
            position, sample = (own, samples[place]) if own >= 0 or shared < 0 else (shared, plain[place])
            computing = self.misses if scorer is None or position < 0 else scorer
            key, digest = keys[place].tobytes(), digests[place].tobytes()
            part = Part(self, computing, sample, key, digest, position, set(wanted), [(job, place)])
            (missing if position < 0 else held).append(part)
        if held:
            self._measure(held)
            job.hits += len(held)
            queue.put(held)
        return missing

    def _not_remembered(self, job: Job, keys: Bytes16, digests: Bytes16, wanted: Collection[str]) -> list[int]:
        """Answer what is in memory; returns the places of the others."""
        rest = []
        for place, content in enumerate(contents_of(keys, digests)):
            found = self.memory.get(content, wanted)
            if found is None:
                rest.append(place)
            else:
                job.hits += 1
                job.put(place, found)
        return rest

    def _for_all(self, scorer: Scorer | None, samples: Sequence[Sample]) -> Indices:
        """Where the store holds samples for whoever asks, and not for one tenant."""
        found, positions = self._positions(*keys_of(samples))
        return positions if found is scorer else np.full(len(samples), -1, np.int64)

    def _positions(self, keys: Bytes16, digests: Bytes16) -> tuple[Scorer | None, Indices]:
        """The scorer of hits, and where its store holds each content; -1 also for one that it cannot tell."""
        if self.hits is None:
            return None, np.full(len(keys), -1, np.int64)
        scorer = self.hits
        try:
            return scorer, _looked_up(scorer, keys, digests)
        except StoreError as error:
            if isinstance(error, GoneError):
                scorer = self._reopen(scorer)
            each = [self._alone(scorer, keys[at : at + 1], digests[at : at + 1]) for at in range(len(keys))]
            return scorer, np.concatenate(each)

    def _alone(self, scorer: Scorer, key: Bytes16, digest: Bytes16) -> Indices:
        """The position of one content. A key that is stored with another digest, damaged or a collision made on
        purpose, is no hit."""
        try:
            return _looked_up(scorer, key, digest)
        except StoreError as error:
            self.say(f"a look-up has failed, and its content is computed: {error}")
            return np.full(1, -1, np.int64)

    def _reopen(self, before: Scorer) -> Scorer:
        """Take notice of segments that came or went. What is on its way goes on with the store as it was."""
        with self._lock:
            if self.hits is before and before.store is not None:
                self.hits = before.over(before.store.as_it_is_now())
            assert self.hits is not None
            return self.hits

    def sealed(self, settled: Collection[bytes]) -> None:
        """Take notice of segments that write-back has sealed or removed. `settled`: contents that no longer wait for
        it."""
        if self.hits is not None:
            self._reopen(self.hits)
        self.misses.renewed(settled)

    def _measure(self, parts: Sequence[Part]) -> None:
        """Note how long parts are that the store holds."""
        store = parts[0].scorer.store
        assert store is not None
        positions = np.array([part.position for part in parts], np.int64)
        if self.keeping is not None:
            self.keeping.touch(store.segments_of(positions))
        lengths = store.lengths(positions)
        samples = [part.sample for part in parts]
        if store.recipe.poolings:
            tokens, cut_off = self.finding.tokens(samples)
        else:
            tokens, cut_off = lengths, self.finding.cut_off(samples, lengths)
        for part, rows, count, off in zip(parts, lengths.tolist(), tokens.tolist(), cut_off, strict=True):
            part.length, part.tokens, part.cut_off = rows, count, off

    def prepare(self, parts: Sequence[Part], queue: Queue) -> None:
        """Let parts that must be computed wait in `queue`, each content once. Those that cannot be used are answered,
        and all of them if too much waits already."""
        fresh = [part for part in parts if not self._joins(part)]
        try:
            queue.put(self._prepared(fresh))
        except OverloadedError as error:
            self._finish_all(fresh, error)
        except Exception as error:  # noqa: BLE001 - whatever a tokenizer raises, others may have joined them
            self._say_failed("preparing has failed", error)
            self._finish_all(fresh, ServerError("the server could not prepare it"))

    def _prepared(self, fresh: Sequence[Part]) -> list[Part]:
        """Those that can be used, ready to be computed. The others are answered."""
        wrong: dict[int, DataError] = {}
        with self.preparing.lock:
            samples = [part.sample for part in fresh]
            places = {id(sample): place for place, sample in enumerate(samples)}
            there, prepared = usable(
                samples, self.preparing.preprocessor, lambda one, error: wrong.update({places[id(one)]: error})
            )
            lengths = self.preparing.preprocessor.lengths(prepared)
            cut_off = self.preparing.cut_off([samples[place] for place in there.tolist()], lengths)
        for place, error in wrong.items():
            self._finish(fresh[place], error)
        ready = []
        for place, inputs, length, off in zip(there.tolist(), prepared, lengths.tolist(), cut_off, strict=True):
            part = fresh[place]
            part.prepared, part.length, part.tokens, part.cut_off = inputs, length, length, off
            ready.append(part)
        return ready

    def _joins(self, part: Part) -> bool:
        """Whether the same content is being computed already, so that this one need not be; else it is from now on."""
        with self._lock:
            other = self._underway.get(part.content)
            if other is None or other.gone or (other.taken and not part.wanted <= other.wanted):
                self._underway[part.content] = part
                return False
            other.wanted |= part.wanted
            other.waiting += part.waiting
            return True

    def drop(self, parts: Sequence[Part]) -> list[Part]:
        """Forget parts that nobody waits for. Returns those that somebody has joined meanwhile."""
        with self._lock:
            back = [part for part in parts if not part.gone]
            for part in parts:
                if part.gone and self._underway.get(part.content) is part:
                    del self._underway[part.content]
        return back

    def compute(self, parts: Sequence[Part], *, keep: bool = True) -> None:
        """Outputs of a batch of parts with one scorer, hits or misses; if it fails, each is computed alone. Without
        `keep` nothing is written back."""
        scorer = parts[0].scorer
        with self._lock:
            for part in parts:
                part.taken = True
        wanted = set().union(*(part.wanted for part in parts))
        try:
            compute = _from_rows if parts[0].position >= 0 else _from_inputs
            each = compute(scorer, parts, wanted, self.keeping if keep else None)
        except MismatchError as error:
            self.unfit = error
            self.say(f"the store does not fit, and nothing is answered from now on: {error}")
            self._finish_all(parts, error)
        except Exception as error:  # noqa: BLE001 - whatever a model raises, the others must have their answers
            self._failed(parts, error, keep=keep)
        else:
            for place, part in enumerate(parts):
                own = {name: outputs[place].clone() for name, outputs in each.items()}
                found = Found(own, part.tokens, part.cut_off)
                if not self.large & own.keys():
                    self.memory.put(part.content, found)
                self._finish(part, found)

    def _failed(self, parts: Sequence[Part], error: Exception, *, keep: bool) -> None:
        if len(parts) > 1:
            for part in parts:
                self.compute([part], keep=keep)
            return
        (part,) = parts
        if part.position >= 0 and isinstance(error, StoreError):
            self.say(f"stored rows cannot be used, so that they are computed: {error}")
            part.scorer, part.position = self.misses, -1
            self._recompute(part)
            return
        if isinstance(error, StoreError) and keep and self.keeping is not None:
            self.compute(parts, keep=False)  # its key may be stored with another digest
            return
        if isinstance(error, DataError):
            self._finish(part, error)
            return
        self._say_failed("a batch has failed", error)
        self._finish(part, ServerError("the server could not compute it"))

    def _recompute(self, part: Part) -> None:
        """Compute a part whose stored rows cannot be used. It happens when files are damaged, in the hits' thread."""
        with self.preparing.lock:
            (part.prepared,) = self.preparing.preprocessor.prepare([part.sample])
        part.length = int(self.preparing.preprocessor.lengths([part.prepared])[0])
        self.compute([part])

    def _say_failed(self, what: str, error: Exception) -> None:
        self.say(f"{what}: {type(error).__name__}: {' '.join(str(error).split())[:500]}")

    def _finish_all(self, parts: Sequence[Part], error: RecycleError) -> None:
        for part in parts:
            self._finish(part, error)

    def _finish(self, part: Part, result: Found | RecycleError) -> None:
        with self._lock:
            if self._underway.get(part.content) is part:
                del self._underway[part.content]
        part.finish(result)


def _looked_up(scorer: Scorer, keys: Bytes16, digests: Bytes16) -> Indices:
    assert scorer.store is not None
    return scorer.store.lookup(keys, digests)


def _window(parts: Sequence[Part]) -> Window:
    keys, digests = (
        np.frombuffer(b"".join(found), np.uint8).reshape(-1, KEY_BYTES)
        for found in zip(*((part.key, part.digest) for part in parts), strict=True)
    )
    return Window([part.sample for part in parts], keys, digests, np.array([part.position for part in parts], np.int64))


def _from_rows(scorer: Scorer, parts: Sequence[Part], wanted: Collection[str], _: Keeping | None) -> Each:
    window, found = _window(parts), {name: list[torch.Tensor]() for name in wanted}
    order: list[int] = []
    for members, rows in scorer.hits(window):
        order += members.tolist()
        for name, outputs in scorer.from_rows(rows, window, members, wanted).items():
            found[name] += outputs.each()
    places = np.argsort(order)
    return {name: [outputs[place] for place in places] for name, outputs in found.items()}


def _from_inputs(scorer: Scorer, parts: Sequence[Part], wanted: Collection[str], writer: Keeping | None) -> Each:
    prepared = [part.prepared for part in parts if part.prepared is not None]
    lengths = np.array([part.length for part in parts], np.int64)
    batch = TrunkBatch(np.arange(len(parts)), lengths, scorer.preprocessor.collate(prepared))
    outputs = scorer.from_inputs(batch, _window(parts), writer, wanted)
    return {name: one.each() for name, one in outputs.items()}
