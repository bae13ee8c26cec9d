import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from recycle_cli.errors import DamageError, MissingError, StorageError, StoreError, UsageError
from recycle_cli.recipe import has_scales
from recycle_cli.store import Store, export, gc, info, liveness, verify
from recycle_cli.store.liveness import Claim, maintenance, remove_dead, unique_id, writers

from .corpora import Corpus

WRITER = """
import sys, time
from store.corpora import Corpus
corpus = Corpus()
with corpus.store(sys.argv[1]).writer() as writer:
    corpus.append(writer, range(100, 110))
    print("writing", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def writer(tmp_path, corpus):
    """A process that is halfway through writing a segment."""
    corpus.store(tmp_path / "s.zarr", range(10))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(["tests", "."])}
    command = [sys.executable, "-c", WRITER, str(tmp_path / "s.zarr")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout.readline() == b"writing\n"
        yield process
        process.kill()


def test_a_living_writer_keeps_its_folder_and_a_dead_one_does_not(tmp_path, writer):
    path = str(tmp_path / "s.zarr")
    assert [entry["pid"] for entry in info(path)["writers"]] == [writer.pid]
    assert gc(path)["leftovers"] == 0
    writer.send_signal(signal.SIGSTOP)
    assert gc(path)["leftovers"] == 0
    assert len(Store.open(path)) == 10
    writer.kill()
    writer.wait()
    found = info(path)
    assert (found["writers"], [entry["pid"] for entry in found["leftovers"]]) == ([], [writer.pid])
    collected = gc(path)
    assert collected["leftovers"] == 1
    assert collected["freed_bytes"] >= found["leftovers"][0]["bytes"] > 0
    assert sorted(entry.name for entry in Path(path, "tmp").iterdir()) == ["maintenance", "zarr.json"]
    assert len(Store.open(path)) == 10


def test_an_interrupted_writer_seals_what_is_whole(tmp_path, writer, corpus):
    writer.send_signal(signal.SIGINT)
    writer.wait()
    corpus.check(Store.open(str(tmp_path / "s.zarr")), [*range(10), *range(100, 110)])


def test_a_writer_of_another_host_lives_until_it_has_been_idle_for_long(tmp_path):
    claim = Claim(tmp_path)
    (tmp_path / f"{claim.name}.lock").write_text(json.dumps({"host": "elsewhere", "pid": 1}))
    os.close(claim._descriptor)
    assert writers(tmp_path)[0].alive
    assert not remove_dead(tmp_path, claim.name)
    long_ago = time.time() - liveness.FOREIGN_IDLE_SECONDS - 60
    for path in (claim.folder, tmp_path / f"{claim.name}.lock"):
        os.utime(path, (long_ago, long_ago))
    assert remove_dead(tmp_path, claim.name)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_a_lock_and_a_lock_without_a_folder_are_leftovers(tmp_path):
    (tmp_path / unique_id()).mkdir()
    (tmp_path / f"{unique_id()}.lock").write_bytes(b"")
    for found in writers(tmp_path):
        assert not found.alive
        assert remove_dead(tmp_path, found.name)
    assert list(tmp_path.iterdir()) == []


def test_a_writer_whose_folder_was_taken_fails_and_seals_nothing(tmp_path, corpus):
    store = corpus.store(tmp_path / "s.zarr", range(5))
    with pytest.raises(StorageError), store.writer() as writer:  # noqa: PT012
        corpus.append(writer, range(5, 9))
        shutil.rmtree(writer._claim.folder)
    assert len(Store.open(store.path)) == 5
    assert verify(store.path)["damaged"] == []


def test_gc_drops_duplicates_and_merges_small_segments(tmp_path, corpus):
    path = str(tmp_path / "s.zarr")
    for numbers in (range(20), range(10, 30), range(30), [50]):
        corpus.store(path, numbers, segment_bytes=300)
    before = info(path)
    assert (before["samples"], before["duplicates"]) == (31, 40)
    planned = gc(path, dry_run=True)
    assert info(path) == before
    done = gc(path)
    assert planned["duplicates"] == done["duplicates"] == 40
    after = info(path)
    assert (after["samples"], after["duplicates"], after["segments"]) == (31, 0, 1)
    assert done["freed_bytes"] == before["bytes"] - after["bytes"] > 0
    corpus.check(Store.open(path), [*range(30), 50])
    assert verify(path)["damaged"] == []
    assert gc(path)["removed"] == 0


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_gc_keeps_codec_scales_and_cuts(tmp_path, codec):
    corpus = Corpus("int8", cuts=("1", "2"))
    corpus.store(tmp_path / "s.zarr", range(20), codec=codec)
    store = corpus.store(tmp_path / "s.zarr", range(5, 25), codec=codec)
    gc(store.path)
    assert info(store.path)["codecs"] == {codec: 1}
    store.refresh()
    corpus.check(store, range(25))
    position = int(store.lookup(*corpus.keys([24]))[0])
    np.testing.assert_array_equal(store.gather_rows("2", np.array([position]))[1], corpus.encoded(24, "2").scales)


def test_gc_refuses_to_keep_a_damaged_copy_and_drop_a_good_one(tmp_path, corpus):
    corpus.store(tmp_path / "s.zarr", range(20))
    store = corpus.store(tmp_path / "s.zarr", range(20))
    values = sorted((tmp_path / "s.zarr/segments").glob("2*/cuts/2/values/c.0.0"))[0]
    values.write_bytes(bytes(values.stat().st_size))
    with pytest.raises(DamageError, match="verify --repair"):
        gc(store.path)
    verify(store.path, repair=True)
    gc(store.path, damaged=True)
    store.refresh()
    corpus.check(store, range(20))
    assert info(store.path)["set_aside"] == []


def test_a_reader_from_before_gc_is_told_to_run_again(tmp_path, corpus):
    corpus.store(tmp_path / "s.zarr", range(20))
    store = corpus.store(tmp_path / "s.zarr", range(20))
    early, late = Store.open(store.path), Store.open(store.path)
    corpus.check(early, range(20))
    gc(store.path)
    corpus.check(early, range(20))  # what it has mapped stays readable
    with pytest.raises(StoreError, match="run the command again"):
        late.read("2", 0)
    late.refresh()
    corpus.check(late, range(20))


def test_one_maintenance_at_a_time(tmp_path, corpus):
    path = corpus.store(tmp_path / "s.zarr", range(3)).path
    with maintenance(tmp_path / "s.zarr/tmp"), pytest.raises(StorageError, match="wait for it"):
        gc(path)


def test_info_says_what_is_there(tmp_path):
    corpus = Corpus("int8", cuts=("1", "2"))
    store = corpus.store(tmp_path / "s.zarr", range(20), segment_bytes=400, codec="lz4")
    found = info(store.path, segments=True)
    assert json.loads(json.dumps(found)) == found
    assert found["samples"] == sum(entry["samples"] for entry in found["segment_list"]) == 20
    assert found["codecs"] == {"lz4": found["segments"]}
    assert found["cuts"]["1"]["row_shape"] == [8]
    assert found["recipe"]["dtype"] == "int8"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int8", "int4"])
def test_export_writes_safetensors_and_numpy(tmp_path, dtype):
    corpus = Corpus(dtype, cuts=("1", "2"))
    store = corpus.store(tmp_path / "s.zarr", range(20), segment_bytes=400)
    keys = [row.tobytes().hex() for row in corpus.keys([7, 3])[0]]
    export(store.path, str(tmp_path / "n"), cut="2", keys=keys, format="numpy")
    arrays = {path.stem: np.load(path) for path in (tmp_path / "n").glob("*.npy")}
    expected = [corpus.encoded(number, "2") for number in (7, 3)]
    np.testing.assert_array_equal(arrays["values"], np.concatenate([encoded.values for encoded in expected]))
    if has_scales(dtype):
        np.testing.assert_array_equal(arrays["scales"], np.concatenate([encoded.scales for encoded in expected]))
    done = export(store.path, str(tmp_path / "x.safetensors"), cut="2", limit=6)
    assert (done["samples"], done["bytes"]) == (6, (tmp_path / "x.safetensors").stat().st_size)
    if dtype != "bfloat16":  # NumPy has no bfloat16
        tensors = load_file(tmp_path / "x.safetensors")
        assert tensors["values"].shape == (tensors["offsets"][-1], 9 if dtype == "int4" else 8)
        positions = store.find(tensors["keys"])
        np.testing.assert_array_equal(store.gather_rows("2", positions)[0], tensors["values"])


def test_export_refuses_in_one_line(tmp_path):
    corpus = Corpus(cuts=("1", "2"))
    path = corpus.store(tmp_path / "s.zarr", range(3)).path
    for options, error, match in (
        ({}, UsageError, "name one of them"),
        ({"cut": "9"}, UsageError, "--cut 9"),
        ({"cut": "1", "format": "pickle"}, UsageError, "--format pickle"),
        ({"cut": "1", "keys": ["zz"]}, UsageError, "hexadecimal"),
        ({"cut": "1", "keys": ["00" * 16]}, MissingError, "00000000"),
        ({"cut": "1", "limit": 0}, MissingError, "nothing to export"),
    ):
        with pytest.raises(error, match=match):
            export(path, str(tmp_path / "out"), **options)
    with pytest.raises(UsageError, match="exists already"):
        export(path, str(tmp_path), cut="1")
    assert [entry.name for entry in tmp_path.iterdir()] == ["s.zarr"]
