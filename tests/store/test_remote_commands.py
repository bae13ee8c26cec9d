"""The real commands on stores in a bucket, on a web server and in memory."""

import csv
import time

import numpy as np
import pytest

from recycle_cli.settings import CorpusSettings, ModelSettings, PrecomputeSettings, PredictSettings, TrainingSettings
from recycle_cli.store.cache import BLOCK
from recycle_cli.verbs.finetune import Job, finetune
from recycle_cli.verbs.precompute import precompute
from recycle_cli.verbs.predict import predict
from tests.conftest import tiny_config
from tests.records import records, write_csv

from .servers import KEYS, web_server
from .test_cache import size_on_disk

obstore = pytest.importorskip("obstore")
remote = pytest.importorskip("obstore.store")

NOBODY = "http://127.0.0.1:9"
"""An address without a server."""

SHAPE = ("--cut", 2, "--max-length", 16, "--batch-tokens", 200, "--segment-bytes", 20_000)
VALUES = "cuts/2/values/c.0.0"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_csv(tmp_path_factory.mktemp("data") / "data.csv", records(60))


@pytest.fixture(scope="module")
def local(recycle, data, tiny_bert, tmp_path_factory):
    """A local store of the same samples."""
    store = tmp_path_factory.mktemp("local") / "acts.zarr"
    recycle.json("precompute", data, store, "--model", tiny_bert, *SHAPE)
    return store


@pytest.fixture(scope="module")
def run(recycle, data, local, tmp_path_factory):
    """A RUN that was trained from the local store."""
    run = tmp_path_factory.mktemp("run") / "run"
    recycle.json("finetune", data, local, "--output", run, "--epochs", 2)
    return run


@pytest.fixture
def s3(s3_endpoint):
    """Environment variables that lead to the server."""
    return {**KEYS, "AWS_ENDPOINT_URL": s3_endpoint}


@pytest.fixture(scope="module")
def answers(recycle, data, run, tmp_path_factory):
    """The scores (n, classes) predicted from a store that holds all samples."""
    out = tmp_path_factory.mktemp("answers") / "predictions.csv"

    def answers(store, env=None):
        done = recycle.json("predict", data, run, "--store", store, "--output", out, env=env)
        assert (done["hits"], done["misses"]) == (60, 0)
        with out.open(encoding="utf-8", newline="") as file:
            return np.array([list(map(float, line[3:])) for line in [*csv.reader(file)][1:]])

    return answers


@pytest.fixture(scope="module")
def expected(answers, local):
    """The scores predicted from the local store."""
    return answers(local)


def test_precompute_finetune_and_predict_work_straight_on_a_bucket(
    recycle, s3, data, answers, expected, tiny_bert, tmp_path
):
    url = "s3://bucket/verbs.zarr"
    filling = ("precompute", data, url, "--model", tiny_bert, *SHAPE)
    first = recycle.json(*filling, env=s3)
    assert (first["new_samples"], first["store"]) == (60, url)
    again = recycle.json(*filling, env=s3)
    assert (again["new_samples"], again["reused_samples"], again["trunk_seconds"]) == (0, 60, 0)
    assert recycle.json("store", "info", url, env=s3)["segments"] > 1
    assert recycle.json("store", "verify", url, env=s3)["damaged"] == []
    trained = recycle.json("finetune", data, url, "--output", tmp_path / "run", "--epochs", 1, env=s3)
    assert trained["store_hit_share"] == 1
    np.testing.assert_allclose(answers(url, s3), expected, atol=1e-6)


def test_predict_writes_back_into_a_bucket(recycle, s3, data, run, tiny_bert, tmp_path):
    url = "s3://bucket/back.zarr"
    recycle.json("precompute", data, url, "--model", tiny_bert, *SHAPE, "--limit", 20, env=s3)
    done = [recycle.json("predict", data, run, "--store", url, "--write-back", env=s3) for _ in range(2)]
    assert [(one["hits"], one["misses"]) for one in done] == [(20, 40), (60, 0)]


def test_what_was_read_once_comes_from_the_cache(recycle, s3, data, run, answers, expected, tiny_bert, tmp_path):
    """Also in the next process: after the bucket's rows are overwritten, only reading without the cache fails."""
    url = "s3://bucket/cached.zarr"
    recycle.json("precompute", data, url, "--model", tiny_bert, *SHAPE, env=s3)
    cached = {**s3, "RECYCLE_CACHE": str(tmp_path / "cache"), "RECYCLE_CACHE_BYTES": str(20 << 20)}
    recycle.json("finetune", data, url, "--output", tmp_path / "run", "--epochs", 1, env=cached)
    store = remote.from_url("s3://bucket", config=s3, client_options={"allow_http": True})
    found = [meta for batch in obstore.list(store, "cached.zarr/") for meta in batch if meta["path"].endswith(VALUES)]
    assert len(found) > 1
    for meta in found:
        obstore.put(store, meta["path"], bytes(meta["size"]))
    np.testing.assert_allclose(answers(url, cached), expected, atol=1e-6)
    refused = recycle("predict", data, run, "--store", url, "--output", tmp_path / "predictions.csv", env=s3)
    assert (refused.code, "checksum" in refused.err) == (4, True)


def test_the_cache_of_a_command_keeps_its_cap(recycle, s3, make_tiny, tmp_path):
    """The store is larger than the cache, and is read by several processes in turn."""
    data = write_csv(tmp_path / "data.csv", records(400, longest=20))
    wide = make_tiny("wide", tiny_config(hidden_size=384, num_hidden_layers=1))
    url, cap = "s3://bucket/capped.zarr", 2 * BLOCK + 4096
    filling = ("--model", wide, "--cut", "100%", "--segment-bytes", 500_000)
    made = recycle.json("precompute", data, url, *filling, env=s3)
    assert made["bytes"] > 1.5 * cap
    cache = tmp_path / "cache"
    env = {**s3, "RECYCLE_CACHE": str(cache), "RECYCLE_CACHE_BYTES": str(cap)}
    seen = []
    for number in range(2):
        running = recycle.start("finetune", data, url, "--output", tmp_path / f"run-{number}", "--epochs", 2, env=env)
        end = time.monotonic() + 60
        while not running.ended and time.monotonic() < end:
            seen.append(size_on_disk(cache) if cache.exists() else 0)
            time.sleep(0.01)
        done = running.wait()
        assert done.code == 0, done.err
        seen.append(size_on_disk(cache))
    assert cap / 2 < max(seen) <= cap


@pytest.mark.parametrize(
    ("verb", "url", "change", "code", "said"),
    [
        ("precompute", "s3://nobody-made-it/a.zarr", {}, 4, "no such bucket"),
        ("finetune", "s3://nobody-made-it/a.zarr", {}, 4, "no such bucket"),
        ("predict", "s3://nobody-made-it/a.zarr", {}, 4, "no such bucket"),
        ("finetune", "s3://bucket/nothing.zarr", {}, 4, "not a store"),
        ("precompute", "s3://bucket/a.zarr", {"AWS_ENDPOINT_URL": NOBODY}, 4, "cannot be reached"),
        ("finetune", "s3://bucket/a.zarr", {"AWS_ENDPOINT_URL": NOBODY}, 4, "cannot be reached"),
        ("precompute", "s3://bucket/a.zarr", None, 4, "no credentials in the environment"),
        ("predict", "s3://bucket/a.zarr", None, 4, "no credentials in the environment"),
        ("precompute", "s3://someone:secret@bucket/a.zarr", {}, 2, "they come from the environment alone"),
    ],
)
def test_what_is_wrong_with_a_bucket_is_one_line_and_soon(
    recycle, s3, data, run, tiny_bert, tmp_path, verb, url, change, code, said
):
    # Without credentials a client asks the cloud's machine on which it may run; nothing answers here.
    bare = {"AWS_ENDPOINT_URL": s3["AWS_ENDPOINT_URL"], "AWS_METADATA_ENDPOINT": NOBODY}
    arguments = {
        "precompute": (data, url, "--model", tiny_bert, *SHAPE),
        "finetune": (data, url, "--output", tmp_path / "run"),
        "predict": (data, run, "--store", url, "--output", tmp_path / "predictions.csv"),
    }
    started = time.monotonic()
    done = recycle(verb, *arguments[verb], "--json", env=bare if change is None else {**s3, **change})
    assert time.monotonic() - started < 45
    assert done.code == done.json["error"]["exit_code"] == code
    (line,) = done.err.splitlines()
    assert said in line
    assert "secret" not in line
    assert list(tmp_path.iterdir()) == []


def test_a_store_on_a_web_server_trains_and_predicts_and_cannot_be_written(
    recycle, data, local, run, answers, expected, tiny_bert, tmp_path
):
    with web_server(local.parent) as address:
        url = f"{address}/{local.name}"
        done = recycle.json("finetune", data, url, "--output", tmp_path / "run", "--epochs", 1)
        assert done["store_hit_share"] == 1
        np.testing.assert_allclose(answers(url), expected, atol=1e-6)
        more = write_csv(tmp_path / "more.csv", records(5, seed=1))
        for command in (
            ("precompute", more, url, "--model", tiny_bert, *SHAPE),
            ("predict", more, run, "--store", url, "--write-back", "--output", tmp_path / "more-predictions.csv"),
        ):
            refused = recycle(*command)
            assert refused.code == 4
            (line,) = refused.err.splitlines()
            assert "can only be read" in line


def test_a_store_in_memory_serves_the_three_verbs_of_one_process(data, tiny_bert, tmp_path):
    corpus, model, url = CorpusSettings((str(data),)), ModelSettings(str(tiny_bert), None, 16), "memory://verbs"
    made = [precompute(corpus, url, model, PrecomputeSettings(("2",), "int8", codec="lz4")) for _ in range(2)]
    assert [one.new_samples for one in made] == [60, 0]
    run = str(tmp_path / "run")
    trained = finetune(Job(corpus, run, url, tensorboard=False), ModelSettings(), TrainingSettings(epochs=1))
    assert trained.store_hit_share == 1
    assert predict(corpus, run, url, None, ModelSettings(), PredictSettings()).hits == 60
