"""Several processes use one store without locks; they share nothing but the folder."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from recycle_cli.errors import MismatchError
from recycle_cli.store import Store, verify
from recycle_cli.store.places import open_place
from tests.contents import contents
from tests.records import records, write_csv

from .corpora import Corpus, recipe


def watch(path, expected, ended):
    """Read the store again and again, from before it exists until `ended`. Returns the keys it holds in the end."""
    seen, store = set(), None
    while True:
        last = ended.is_set()
        if store is not None or (path / "zarr.json").exists():
            store = Store.open(str(path)) if store is None else store
            store.refresh()
            positions = store.positions()
            keys = [key.tobytes() for key in store.keys(positions)]
            assert seen <= set(keys), "a sample that was there is gone"
            assert len(keys) == len(set(keys)), "a sample is counted twice"
            for key, position in zip(keys, positions.tolist(), strict=True):
                assert store.read("2", position).tobytes() == expected[key][1]["2"], "a sample has other rows"
            seen = set(keys)
        if last:
            return seen


def test_four_commands_fill_what_overlaps_while_this_process_reads(recycle, tiny_bert, tmp_path):
    texts = records(160, longest=20)
    # One sample a batch, so that its rows do not depend on others in the batch.
    shape = ("--model", tiny_bert, "--cut", 2, "--max-length", 24, "--batch-tokens", 1, "--segment-bytes", 6_000)
    corpora = [write_csv(tmp_path / f"{first}.csv", texts[first : first + 70]) for first in (0, 30, 60, 90)]
    recycle.json("precompute", write_csv(tmp_path / "all.csv", texts), tmp_path / "undisturbed", *shape)
    expected, store, ended = contents(tmp_path / "undisturbed"), tmp_path / "store", threading.Event()
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(watch, store, expected, ended)
        running = [recycle.start("precompute", corpus, store, *shape, "--json") for corpus in corpora]
        done = [command.wait() for command in running]
        ended.set()
        seen = reading.result()
    assert [one.code for one in done] == [0, 0, 0, 0], done
    assert seen == expected.keys()
    found = recycle.json("store", "info", store)
    # There are as many as the commands happened to overlap in time.
    duplicates = sum(one.json["new_samples"] for one in done) - 160
    assert found["duplicates"] == duplicates
    assert (found["writers"], found["leftovers"]) == ([], [])
    assert recycle.json("store", "verify", store)["damaged"] == []
    assert recycle.json("store", "gc", store)["duplicates"] == duplicates
    assert contents(store) == expected
    assert recycle.json("store", "verify", store)["damaged"] == []


@pytest.fixture(params=["folder", "folder without hard links", "bucket", "memory"])
def somewhere(request, tmp_path, monkeypatch):
    """A path or URL at which a store can be made."""
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
    """Another writer makes the store between any two steps; its root counts, and is not taken for a foreign folder."""
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
