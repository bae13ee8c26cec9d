"""Several processes on one store, with no lock and nothing shared but the folder."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from recycle_cli.errors import MismatchError
from recycle_cli.store import Store, gc, info, verify
from recycle_cli.store.places import open_place
from tests.contents import contents
from tests.records import records, write_csv

from .corpora import Corpus, recipe

HERE = Path(__file__).resolve().parent
PREAMBLE = f"import sys; sys.path[:0] = [{str(HERE.parent)!r}, {str(HERE.parents[1])!r}]\n"

WRITE = """
from store.corpora import Corpus
path, first, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
Corpus().store(path, range(first, last), batch=3, segment_bytes=400)
"""

READ = """
import pathlib
from recycle_cli.store import Store
from store.corpora import Corpus
corpus, path, done, seen = Corpus(), sys.argv[1], pathlib.Path(sys.argv[2]), 0
store = Store.create_or_open(path, corpus.recipe, {})
while True:
    last = done.exists()
    store.refresh()
    positions = store.lookup(*corpus.keys(range(160)))
    there = [number for number, position in enumerate(positions.tolist()) if position >= 0]
    corpus.check(store, there)
    assert len(there) >= seen, "a sample that was there is gone"
    seen = len(there)
    if last:
        break
assert seen == 160, seen
"""


def start(code, *arguments):
    return subprocess.Popen([sys.executable, "-c", PREAMBLE + code, *map(str, arguments)])


def test_four_write_what_overlaps_while_a_fifth_reads(tmp_path):
    path, done = str(tmp_path / "s.zarr"), tmp_path / "done"
    reader = start(READ, path, done)
    writers = [start(WRITE, path, first, first + 70) for first in (0, 30, 60, 90)]
    assert [writer.wait() for writer in writers] == [0, 0, 0, 0]
    done.touch()
    assert reader.wait() == 0
    corpus = Corpus()
    assert len(Store.open(path)) == 160
    assert info(path)["duplicates"] == 4 * 70 - 160
    assert verify(path)["damaged"] == []
    gc(path)
    corpus.check(Store.open(path), range(160))
    assert info(path)["duplicates"] == 0


def watch(path, expected, ended):
    """Read the store again and again, from before it is there until `ended`: whole rounds, and all keys of the last."""
    rounds, seen = 0, set()
    while True:
        last = ended.is_set()
        if (path / "zarr.json").exists():
            store = Store.open(str(path))
            positions = store.positions()
            keys = [key.tobytes() for key in store.keys(positions)]
            assert seen <= set(keys), "a sample that was there is gone"
            assert len(keys) == len(set(keys)), "a sample is counted twice"
            for key, position in zip(keys, positions.tolist(), strict=True):
                assert store.read("2", position).tobytes() == expected[key][1]["2"], "a sample has other rows"
            rounds, seen = rounds + 1, set(keys)
        if last:
            return rounds, seen


def test_four_commands_fill_what_overlaps_while_this_process_reads(recycle, tiny_bert, tmp_path):
    texts = records(160, longest=20)
    # One sample a batch: its rows are the same bits then, whatever is computed beside it.
    shape = ("--model", tiny_bert, "--cut", 2, "--max-length", 24, "--batch-tokens", 1, "--segment-bytes", 6_000)
    corpora = [write_csv(tmp_path / f"{first}.csv", texts[first : first + 70]) for first in (0, 30, 60, 90)]
    recycle.json("precompute", write_csv(tmp_path / "all.csv", texts), tmp_path / "undisturbed", *shape)
    expected, store, ended = contents(tmp_path / "undisturbed"), tmp_path / "store", threading.Event()
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(watch, store, expected, ended)
        running = [recycle.start("precompute", corpus, store, *shape, "--json") for corpus in corpora]
        done = [command.wait() for command in running]
        ended.set()
        rounds, seen = reading.result()
    assert [one.code for one in done] == [0, 0, 0, 0], done
    assert rounds > 3
    assert seen == expected.keys()
    found = recycle.json("store", "info", store)
    duplicates = sum(one.json["new_samples"] for one in done) - 160
    assert found["duplicates"] == duplicates > 0
    assert (found["writers"], found["leftovers"]) == ([], [])
    assert recycle.json("store", "verify", store)["damaged"] == []
    assert recycle.json("store", "gc", store)["duplicates"] == duplicates
    assert contents(store) == expected
    assert recycle.json("store", "verify", store)["damaged"] == []


@pytest.fixture(params=["folder", "folder without hard links", "bucket", "memory"])
def somewhere(request, tmp_path, monkeypatch):
    """Where a store can be made."""
    if request.param.startswith("folder"):

        def no_links(*arguments):
            raise PermissionError("not here")

        monkeypatch.setattr(os, "link", no_links if "without" in request.param else os.link)
        return str(tmp_path / "s.zarr")
    pytest.importorskip("obstore")
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("other", [False, True], ids=["the same recipe", "another recipe"])
@pytest.mark.parametrize("step", range(6))
def test_a_root_that_another_writer_makes_meanwhile_counts(somewhere, monkeypatch, step, other):
    """Between any two steps of making a store: first come, first served, and nobody takes it for a foreign folder."""
    steps, kind = [], type(open_place(somewhere))
    corpus = Corpus()

    def first_come():
        made = recipe("float32") if other else corpus.recipe
        Store.create_or_open(somewhere, made, {"made by": "the first"})

    def after(place, *arguments, method):
        steps.append(method)
        if len(steps) == step + 1:
            with monkeypatch.context() as patch:
                for name, original in originals.items():
                    patch.setattr(kind, name, original)
                first_come()
        return originals[method](place, *arguments)

    originals = {name: getattr(kind, name) for name in ("begin", "create")}
    for name in originals:
        monkeypatch.setattr(kind, name, lambda place, *arguments, name=name: after(place, *arguments, method=name))
    if other:
        with pytest.raises(MismatchError, match="dtype"):
            Store.create_or_open(somewhere, corpus.recipe, {"made by": "the second"})
    else:
        Store.create_or_open(somewhere, corpus.recipe, {"made by": "the second"})
        corpus.check(corpus.store(somewhere, range(5)), range(5))
    assert steps == ["begin"] + 5 * ["create"], "a step of making a store that this test does not know"
    assert Store.open(somewhere).provenance == {"made by": "the first"}
    assert verify(somewhere)["damaged"] == []
