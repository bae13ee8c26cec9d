"""Signals over remove and merge at any instant; `python -m pytest -m long tests/store/test_signals.py` sends 100."""

import random
import shutil
import signal
from collections import Counter

import numpy as np
import pytest

from recycle_cli.store import Store
from tests.contents import contents
from tests.records import records, write_csv

SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
SHAPE = ("--cut", 2, "--max-length", 24, "--batch-tokens", 1, "--segment-bytes", 20_000)


@pytest.fixture(scope="module")
def made(recycle, tiny_bert, tmp_path_factory):
    """Two overlapping stores, and the corpus that is removed."""
    folder = tmp_path_factory.mktemp("made")
    texts = records(300, longest=20)
    for name, part in {"a": texts[:200], "b": texts[100:]}.items():
        data = write_csv(folder / f"{name}.csv", part)
        recycle.json("precompute", data, folder / f"{name}.zarr", "--model", tiny_bert, *SHAPE)
    write_csv(folder / "gone.csv", texts[50:150])
    return folder


def trial(recycle, made, folder, seed, rounds):
    """Start remove and merge again and again, each with a signal, until both are through; check after each signal."""
    draw = random.Random(seed)
    whole = contents(made / "a.zarr") | contents(made / "b.zarr")
    after = contents(made / "a.zarr").keys()
    gone = held_by(recycle, made)
    kept = after - gone
    sent, seconds = Counter(), {"remove": 1.0, "merge": 1.0}
    while sum(sent.values()) < rounds:
        store = folder / "a.zarr"
        shutil.copytree(made / "a.zarr", store)
        commands = {
            "remove": ("store", "remove", store, made / "gone.csv"),
            "merge": ("store", "merge", made / "b.zarr", store),
        }
        for name, command in commands.items():
            while True:
                number = draw.choice(SIGNALS)
                done = recycle.killed(*command, after=draw.uniform(0, seconds[name]), number=number)
                assert "Traceback" not in done.err, done.err
                seconds[name] *= 1.1 if done.code else 0.8
                check(store, whole, kept)
                if done.code == 0:
                    break
                assert done.code in (-number, 130), done
                sent[name, number.name] += 1
        assert recycle("store", "verify", store).code == 0
        recycle.json("store", "gc", store)
        found = contents(store)
        assert found == {key: rows for key, rows in whole.items() if key in kept | contents(made / "b.zarr").keys()}
        assert not [entry for entry in (store / "tmp").iterdir() if entry.is_dir()]
        shutil.rmtree(store)
    return sent


def held_by(recycle, made):
    """Keys of the samples that are removed from store a."""
    copy = made / "copy.zarr"
    shutil.copytree(made / "a.zarr", copy)
    recycle.json("store", "remove", copy, made / "gone.csv")
    gone = contents(made / "a.zarr").keys() - contents(copy).keys()
    assert len(gone) == 100
    shutil.rmtree(copy)
    return gone


def check(path, whole, kept):
    """Every sample that must stay is there, and whatever is there has the right rows."""
    store = Store.open(str(path))
    positions = store.positions()
    keys = [key.tobytes() for key in store.keys(positions)]
    assert kept <= set(keys)
    for key, position in zip(keys, np.asarray(positions).tolist(), strict=True):
        assert store.read("2", position).tobytes() == whole[key][1]["2"]


@pytest.mark.long
def test_a_few_signals_lose_nothing(recycle, made, tmp_path):
    trial(recycle, made, tmp_path, 1, 2)


@pytest.mark.long
def test_a_hundred_signals_lose_nothing(recycle, made, tmp_path):
    sent = trial(recycle, made, tmp_path, 2, 100)
    assert {name for name, _ in sent} == {"remove", "merge"}
