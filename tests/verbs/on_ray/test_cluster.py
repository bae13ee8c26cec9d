"""A cluster of two nodes, four workers, and one of them killed in the middle of a shard: nothing is lost or doubled."""

import json
import os
import signal
from urllib.request import Request, urlopen

import pytest

from recycle_cli.settings import CorpusSettings, EngineSettings, ModelSettings, PrecomputeSettings
from recycle_cli.store import verify
from recycle_cli.verbs.on_ray import driver
from recycle_cli.verbs.on_ray import handing_out as module
from recycle_cli.verbs.on_ray.driver import precompute_on_ray
from recycle_cli.verbs.precompute import precompute
from tests.contents import contents
from tests.records import records
from tests.store.servers import KEYS, served

pytest.importorskip("ray")

pytestmark = [
    pytest.mark.ray,
    # Ray leaves its log files and sockets to the interpreter's end, and warns of its own next versions.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning"),
]

TEXTS, SHARDS, KILLED_AFTER = 640, 16, 30
SMALL = {"cuts": ("2",), "dtype": "float32", "batch_tokens": 1, "segment_bytes": 8000}


@pytest.fixture(scope="module")
def bucket():
    with pytest.MonkeyPatch.context() as patch, served("moto_server", host="-H", port="-p") as endpoint:
        urlopen(Request(f"{endpoint}/bucket", method="PUT")).close()
        for name, value in {**KEYS, "AWS_ENDPOINT_URL": endpoint}.items():
            patch.setenv(name, value)
        yield "s3://bucket"


@pytest.fixture(scope="module")
def address(bucket):
    """Two nodes, whose workers have the environment of the bucket."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 2, "object_store_memory": 100 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    cluster.add_node(num_cpus=2, object_store_memory=100 * 2**20)
    yield cluster.address
    cluster.shutdown()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "texts.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in records(TEXTS)), encoding="utf-8")
    return CorpusSettings((str(path),))


@pytest.fixture(scope="module")
def whole(corpus, tiny_bert, tmp_path_factory):
    """What one process makes of the corpus."""
    path = tmp_path_factory.mktemp("whole") / "acts.zarr"
    precompute(corpus, str(path), ModelSettings(str(tiny_bert)), PrecomputeSettings(**SMALL))
    return contents(path)


class Killing(module.HandingOut):
    """Kills the first worker that has done most of a shard."""

    killed = None

    def _ask_for_counts(self):
        super()._ask_for_counts()
        for hand in self._hands:
            if Killing.killed is None and hand.records >= KILLED_AFTER and hand.shard is not None:
                Killing.killed = hand.shard
                Killing.driver = self
                os.kill(hand.ready.pid, signal.SIGKILL)


@pytest.mark.parametrize("place", ["folder", pytest.param("bucket", marks=pytest.mark.long)])
def test_a_worker_killed_in_a_shard_loses_and_doubles_nothing(
    place, address, bucket, corpus, whole, tiny_bert, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "PAUSE", 0.02)
    monkeypatch.setattr(driver, "LEAST_A_WORKER", SHARDS // 4)
    monkeypatch.setattr(driver, "HandingOut", Killing)
    monkeypatch.setattr(Killing, "killed", None)
    store = f"{bucket}/acts.zarr" if place == "bucket" else str(tmp_path / "acts.zarr")
    found = precompute_on_ray(
        corpus,
        store,
        ModelSettings(str(tiny_bert)),
        PrecomputeSettings(**SMALL),
        EngineSettings("ray", address, workers=4),
    )
    assert found.retried == {str(Killing.killed): 1}
    again = Killing.driver.done[Killing.killed].report
    assert again.reused_samples >= again.samples / 2
    assert (found.samples, found.new_samples, found.reused_samples) == (TEXTS, TEXTS, 0)
    assert (found.workers, found.nodes, found.threads, found.shards) == (4, 2, 1, SHARDS)
    assert contents(store) == whole  # and each sample once
    assert not verify(store)["damaged"]
    report = precompute(corpus, store, ModelSettings(str(tiny_bert)), PrecomputeSettings(**SMALL))
    assert report.new_samples == 0
