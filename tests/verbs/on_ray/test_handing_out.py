"""Shards are handed out until all are done, whatever becomes of workers: against a cluster of one thread that fails as
it is told, of which the tests in test_cluster.py have a real one."""

from types import SimpleNamespace

import pytest

from recycle_cli.errors import DataError, Interrupted, StorageError, WorkerError
from recycle_cli.settings import Shard
from recycle_cli.verbs.on_ray.cluster import Division
from recycle_cli.verbs.on_ray.handing_out import NODES_LOST, TRIES, HandingOut
from recycle_cli.verbs.on_ray.messages import Done, Ready, Refused, Stopped

SHARDS = [Shard(index, 6) for index in range(6)]


class Lost(Exception):  # noqa: N818 - as Ray's own
    """Ray's error if a worker is gone."""


class Cluster:
    """As the module `ray`. `fate`: what `fill` does with a shard in place of filling it, by its try from 1 on."""

    exceptions = SimpleNamespace(RayError=Lost)

    def __init__(self, fate=lambda shard, number: None, opens=lambda number: True):
        self.fate, self.opens = fate, opens
        self.filled, self.stopped, self.killed, self.actors = [], [], [], []
        self.dead_nodes, self.turn = set(), 0

    def remote(self, **options):
        assert options["max_restarts"] == options["max_task_retries"] == 0
        return lambda worker: SimpleNamespace(options=lambda **resources: SimpleNamespace(remote=self._made))

    def _made(self, work):
        actor = SimpleNamespace(number=len(self.actors), filling=None)
        self.actors.append(actor)

        def method(function):
            call = SimpleNamespace(remote=lambda *given: (actor, function, given, object()))
            return SimpleNamespace(remote=call.remote, options=lambda **group: call)

        actor.open = method(lambda: self._opened(actor))
        actor.fill = method(lambda shard: self._filled(actor, shard))
        actor.records = method(lambda: 0)
        actor.stop = method(lambda: None)
        actor.stop.options = lambda **group: SimpleNamespace(remote=lambda: self.stopped.append(actor.number))
        return actor

    def _opened(self, actor):
        if not self.opens(actor.number):
            raise Lost("ended")
        return Ready("host", f"node-{actor.number}", 1)

    def _filled(self, actor, shard):
        self.filled.append(shard)
        found = self.fate(shard, self.filled.count(shard))
        if found == "node lost":
            self.dead_nodes.add(f"node-{actor.number}")
        if isinstance(found, str):
            raise Lost(found)
        if isinstance(found, BaseException):
            return Refused(found)
        return found or Done(SimpleNamespace(samples=1), ())

    def wait(self, refs, *, num_returns, timeout):
        self.turn += 1  # so that every worker has its turn
        return [refs[self.turn % len(refs)]], refs

    def get(self, ref):
        _, function, given, _ = ref
        return function(*given)

    def kill(self, actor):
        self.killed.append(actor.number)

    def nodes(self):
        ids = [f"node-{actor.number}" for actor in self.actors]
        return [{"NodeID": one, "Alive": one not in self.dead_nodes} for one in ids]


def run(cluster, workers=2, progress=lambda done, note: None):
    handing_out = HandingOut(cluster, Division(workers, 1, 0.0), None, SHARDS)
    handing_out.run(progress)
    return handing_out


def test_every_shard_is_filled_once_and_no_worker_is_left():
    cluster = Cluster()
    found = run(cluster)
    assert sorted(found.done, key=str) == SHARDS
    assert len(cluster.filled) == 6
    assert len(cluster.actors) == 2
    assert sorted(cluster.killed) == [0, 1]
    assert not found.retried


def test_there_are_no_more_workers_than_shards():
    cluster = Cluster()
    run(cluster, workers=50)
    assert len(cluster.actors) == 6


def test_a_shard_whose_worker_is_lost_is_handed_out_again():
    cluster = Cluster(lambda shard, number: "killed" if shard == SHARDS[2] and number == 1 else None)
    found = run(cluster)
    assert found.retried == {SHARDS[2]: 1}
    assert set(found.done) == set(SHARDS)
    assert len(cluster.actors) == 3


def test_a_shard_that_ends_each_of_its_workers_is_given_up_by_name_and_the_others_are_done():
    cluster = Cluster(lambda shard, number: "out of memory" if shard == SHARDS[4] else None)
    with pytest.raises(WorkerError, match=r"1 shard of 6 given up: 4/6 \(out of memory\).*--shard 4/6"):
        run(cluster)
    assert cluster.filled.count(SHARDS[4]) == TRIES
    assert set(cluster.filled) == set(SHARDS)


def test_the_loss_of_a_node_is_not_held_against_a_shard_but_not_for_ever():
    cluster = Cluster(lambda shard, number: "node lost" if shard == SHARDS[1] and number <= 5 else None)
    assert run(cluster).retried == {SHARDS[1]: 5}
    always = Cluster(lambda shard, number: "node lost" if shard == SHARDS[1] else None)
    with pytest.raises(WorkerError, match="1/6"):
        run(always)
    assert always.filled.count(SHARDS[1]) == NODES_LOST


def test_storage_that_fails_for_a_while_is_tried_again_and_then_told():
    passing = Cluster(lambda shard, number: StorageError("no answer") if shard == SHARDS[0] and number < 3 else None)
    assert run(passing).retried == {SHARDS[0]: 2}
    assert len(passing.actors) == 2  # the worker is kept
    lasting = Cluster(lambda shard, number: StorageError("no answer"))
    with pytest.raises(StorageError, match="no answer"):
        run(lasting)


def test_a_record_that_cannot_be_used_ends_the_command_and_the_others_seal():
    cluster = Cluster(lambda shard, number: DataError("record 7: no text") if shard == SHARDS[1] else None)
    with pytest.raises(DataError, match="record 7"):
        run(cluster, workers=3)
    assert cluster.filled.count(SHARDS[1]) == 1
    assert cluster.stopped
    assert sorted(set(cluster.killed)) == [0, 1, 2]


def test_workers_that_never_open_end_the_command():
    cluster = Cluster(opens=lambda number: False)
    with pytest.raises(WorkerError, match="before they had opened the model"):
        run(cluster)
    assert len(cluster.actors) <= TRIES + 1


def test_workers_that_do_not_open_leave_the_work_to_those_that_do():
    cluster = Cluster(opens=lambda number: number in (1, 4))
    assert set(run(cluster).done) == set(SHARDS)


def test_an_interruption_lets_workers_seal():
    cluster = Cluster(lambda shard, number: None)

    def interrupt(done, note):
        if done == 3:
            raise Interrupted

    with pytest.raises(Interrupted):
        run(cluster, progress=interrupt)
    assert cluster.stopped
    assert sorted(set(cluster.killed)) == [0, 1]


def test_a_worker_that_was_asked_to_stop_says_so(monkeypatch):
    from recycle_cli.verbs.on_ray.worker import Counted, Worker

    worker = Worker(None)
    worker._filling = SimpleNamespace(fill=lambda shard, counted: counted.update(3))
    worker.fill(SHARDS[0])
    assert worker.records() == 3
    worker.stop()
    assert isinstance(worker.fill(SHARDS[0]), Stopped)
    assert isinstance(worker._counted, Counted)
