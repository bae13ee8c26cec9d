"""What the driver refuses, hands on and reports; the workers are real, in this process."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from recycle_cli import __version__
from recycle_cli.corpus import Corpus
from recycle_cli.errors import DataError, MismatchError, StoreError, UsageError
from recycle_cli.reports import be_quiet
from recycle_cli.settings import CorpusSettings, EngineSettings, ModelSettings, PrecomputeSettings, Shard
from recycle_cli.store import EncodedRows, Store
from recycle_cli.verbs.on_ray import driver
from recycle_cli.verbs.on_ray.cluster import Division, divided, joined
from recycle_cli.verbs.on_ray.driver import precompute_on_ray, shards_of, windows_of
from recycle_cli.verbs.on_ray.messages import Work
from recycle_cli.verbs.on_ray.worker import Worker
from recycle_cli.verbs.precompute import precompute
from tests.conftest import save_tiny, tiny_config
from tests.contents import contents
from tests.records import records, write_csv
from tests.verbs.on_ray.in_process import in_place_of_ray

RAY = EngineSettings("ray")
SETTINGS = PrecomputeSettings(cuts=("2",), dtype="float32", batch_tokens=1)
"""One sample a batch, since what a row is padded with changes its last bits."""


@pytest.fixture
def ray(monkeypatch):
    for name in ("OMP_NUM_THREADS", "RAYON_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    yield in_place_of_ray(monkeypatch)
    be_quiet(False)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def run(corpus, store, model, *, settings=SETTINGS, **options):
    records = CorpusSettings((str(corpus),), **options)
    return precompute_on_ray(records, str(store), ModelSettings(str(model)), settings, RAY)


def test_workers_give_the_store_of_one_process(ray, tmp_path, tiny_bert, monkeypatch):
    corpus = write(tmp_path / "texts.jsonl", records(90))
    one = precompute(CorpusSettings((str(corpus),)), str(tmp_path / "one"), ModelSettings(str(tiny_bert)), SETTINGS)
    monkeypatch.chdir(tmp_path)
    found = run("texts.jsonl", "all", tiny_bert)
    assert contents(tmp_path / "all") == contents(tmp_path / "one")
    for name in ("samples", "new_samples", "reused_samples", "failed_samples", "rows", "fingerprint", "cuts", "dtype"):
        assert getattr(found, name) == getattr(one, name)
    assert (found.workers, found.threads, found.shards, found.store) == (4, 1, 8, "all")
    assert ray.resources == [{"num_cpus": 1, "num_gpus": 0.0}]
    again = run("texts.jsonl", "all", tiny_bert)
    assert (again.new_samples, again.reused_samples, again.rows, again.bytes) == (0, 90, 0, 0)


def test_workers_seal_before_their_shard_or_a_segment_is_full(ray, tmp_path, tiny_bert, monkeypatch):
    corpus = write(tmp_path / "texts.jsonl", records(90))
    monkeypatch.setattr(driver, "FIRST_SEAL", 0.0)
    found = run(corpus, tmp_path / "s", tiny_bert)
    assert len(Store.open(str(tmp_path / "s")).segments) >= 2 * found.shards
    assert len(contents(tmp_path / "s")) == 90


def test_content_that_two_workers_stored_is_told(ray, tmp_path, tiny_bert, capsys):
    corpus = write(tmp_path / "texts.jsonl", records(20))
    run(corpus, tmp_path / "s", tiny_bert)
    assert "twice" not in capsys.readouterr().err
    store = Store.open(str(tmp_path / "s"))
    segment = store.segments[0]
    rows = EncodedRows(store.read("2", 0))
    with store.writer() as writer:
        writer.append(store.keys(np.array([0])), segment.digests[:1], np.array([len(rows.values)]), {"2": rows})
    run(corpus, tmp_path / "s", tiny_bert)
    assert "1 sample stored twice" in capsys.readouterr().err
    assert len(Store.open(str(tmp_path / "s"))) == 20


def test_the_lists_of_failures_are_one_in_the_order_of_the_corpus(ray, tmp_path, tiny_bert):
    rows = [row | {"id": str(place)} for place, row in enumerate(records(60))]
    for place in (3, 30, 31, 59):
        rows[place]["text"] = ""
    corpus, failures = write(tmp_path / "texts.jsonl", rows), tmp_path / "failures.jsonl"
    found = run(corpus, tmp_path / "s", tiny_bert, on_error="skip", failures=str(failures), id_column="id")
    assert (found.samples, found.new_samples, found.failed_samples) == (60, 56, 4)
    assert [json.loads(line)["id"] for line in failures.read_text().splitlines()] == ["3", "30", "31", "59"]
    assert sorted(tmp_path.iterdir()) == sorted([corpus, failures, tmp_path / "s"])


def test_a_corpus_without_a_usable_record_is_refused(ray, tmp_path, tiny_bert):
    corpus = write(tmp_path / "texts.jsonl", [{"text": ""}] * 20)
    with pytest.raises(DataError, match="none of 20 records can be used"):
        run(corpus, tmp_path / "s", tiny_bert, on_error="skip")


def test_a_record_that_cannot_be_used_is_told_with_its_machine(ray, tmp_path, tiny_bert):
    corpus = write(tmp_path / "texts.jsonl", [*records(30), {"text": ""}])
    with pytest.raises(DataError, match=rf"^on {os.uname().nodename}: .*texts.jsonl from byte \d+, record \d+"):
        run(corpus, tmp_path / "s", tiny_bert)


@pytest.mark.parametrize(
    ("settings", "source", "store", "options", "said"),
    [
        (replace(SETTINGS, shard=Shard(0, 2)), "texts.jsonl", "s", {}, "--shard 0/2"),
        (SETTINGS, "texts.jsonl", "s", {"limit": 3}, "--limit 3"),
        (SETTINGS, "-", "s", {}, "a pipe"),
        (SETTINGS, "texts.jsonl", "memory://s", {}, "one process"),
    ],
)
def test_what_workers_cannot_do_together_is_refused(ray, tmp_path, tiny_bert, settings, source, store, options, said):
    with pytest.raises(UsageError, match=said):
        run(source, store, tiny_bert, settings=settings, **options)


def test_options_of_workers_belong_to_ray():
    for options in ({"workers": 2}, {"address": "auto"}):
        with pytest.raises(UsageError, match="only --engine ray"):
            EngineSettings(**options)


def test_without_the_package_the_message_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'recycle-cli\[ray\]'"), joined(RAY):
        pass


@pytest.mark.parametrize(
    ("nodes", "workers", "device", "expected"),
    [
        ([{"CPU": 2}, {"CPU": 2}], None, "auto", Division(4, 1, 0.0)),
        ([{"CPU": 8}, {"CPU": 4}], 3, "auto", Division(3, 4, 0.0)),
        ([{"CPU": 8}, {"CPU": 4}], 4, "cpu", Division(4, 2, 0.0)),
        ([{"CPU": 16, "GPU": 4}, {"CPU": 16, "GPU": 4}], None, "auto", Division(8, 4, 1.0)),
        ([{"CPU": 16, "GPU": 2}], 4, "cuda", Division(4, 4, 0.5)),
        ([{"CPU": 16, "GPU": 2}], None, "cpu", Division(16, 1, 0.0)),
        ([{}], 6, "cuda", Division(6, 1, 1.0)),
        ([{"CPU": 2}], 5, "auto", Division(5, 1, 0.0)),
    ],
)
def test_the_cpus_and_gpus_are_divided_among_the_workers(nodes, workers, device, expected):
    assert divided(nodes, workers, device) == expected


def test_there_are_more_shards_than_workers_but_few_that_read_all_the_files(tmp_path):
    seekable = Corpus(CorpusSettings((str(write(tmp_path / "texts.jsonl", records(9))),)))
    assert shards_of(seekable, 1000.0, 3) == [Shard(index, 24) for index in range(24)]
    assert len(shards_of(seekable, 13.0, 3)) == 12
    assert len(shards_of(seekable, 0.1, 3)) == 6
    assert 0 < windows_of(seekable, 16384) < 0.01
    dealt = Corpus(CorpusSettings((str(write_csv(tmp_path / "texts.csv", records(9))),)))
    assert len(shards_of(dealt, 1000.0, 3)) == 6
    table = tmp_path / "texts.parquet"
    parquet.write_table(pa.table({"text": [row["text"] for row in records(90)]}), table)
    assert windows_of(Corpus(CorpusSettings((str(table),))), 10) == 9.0


def test_a_corpus_of_unknown_size_has_the_most_shards(tmp_path):
    streamed = SimpleNamespace(total=None, settings=CorpusSettings(("hub:imdb:test",)))
    assert windows_of(streamed, 16384) == float("inf")
    seekable = Corpus(CorpusSettings((str(write(tmp_path / "texts.jsonl", records(9))),)))
    assert len(shards_of(seekable, float("inf"), 3)) == 24


def opened(tmp_path, tiny, **changes):
    """What a worker says that is told the driver's store, model and version, but for the changes."""
    corpus = write(tmp_path / "texts.jsonl", records(20))
    path, named = str(tmp_path / "s"), ModelSettings(str(tiny))
    precompute(CorpusSettings((str(corpus),)), path, named, SETTINGS)
    store = Store.open(path)
    told = Work(
        CorpusSettings((str(corpus),)), path, named, SETTINGS, __version__, store.recipe.to_json(), store.provenance, 1
    )
    return Worker(replace(told, **changes)).open()


def test_a_worker_refuses_another_version(ray, tmp_path, tiny_bert):
    refused = opened(tmp_path, tiny_bert, version="0.0.0").error
    assert isinstance(refused, MismatchError)
    assert f"on {os.uname().nodename}: recycle {__version__} is installed, and 0.0.0" in str(refused)


def test_a_worker_refuses_another_trunk_before_it_touches_the_store(ray, tmp_path, tiny_bert):
    other = save_tiny(tmp_path / "other", tiny_config(), seed=5, bare=True)
    refused = opened(tmp_path, tiny_bert, model=ModelSettings(str(other))).error
    assert isinstance(refused, MismatchError)
    assert "weights" in str(refused)
    assert len(Store.open(str(tmp_path / "s"))) == 20


def test_a_worker_refuses_a_folder_that_is_not_the_drivers(ray, tmp_path, tiny_bert):
    elsewhere = tmp_path / "elsewhere"
    refused = opened(tmp_path, tiny_bert, store=str(elsewhere)).error
    assert isinstance(refused, StoreError)
    assert "the same folder on every node" in str(refused)
    assert not elsewhere.exists()
    provenance = {"model": "x", "created": "yesterday"}
    assert "another store" in str(opened(tmp_path, tiny_bert, provenance=provenance).error)


def test_an_address_at_which_nobody_listens_is_told_at_once(ray, monkeypatch):
    with (
        pytest.raises(UsageError, match="no Ray cluster can be joined"),
        joined(EngineSettings("ray", "127.0.0.1:9")),
    ):
        pass


def test_the_driver_tells_workers_absolute_paths(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("model").mkdir()
    assert driver._source_everywhere("a/*.jsonl") == str(tmp_path / "a/*.jsonl")
    assert driver._source_everywhere("hub:x") == "hub:x"
    assert driver._store_everywhere("s3://b/s") == "s3://b/s"
    assert driver._if_there("model") == str(tmp_path / "model")
    assert driver._if_there("no-such/model") == "no-such/model"
