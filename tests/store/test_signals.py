"""Signals over predict --write-back, remove and merge at any instant.

`python -m pytest -m long tests/store/test_signals.py` sends a hundred.
"""

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
ALONE = ("--batch-tokens", 1)
"""Each sample is a batch of its own, so that its rows are the same to the bit whoever computes them."""
SHAPE = ("--cut", 2, "--max-length", 24, *ALONE, "--segment-bytes", 20_000)


@pytest.fixture(scope="module")
def made(recycle, tiny_bert, tmp_path_factory):
    """Two overlapping stores, the corpus that is removed, a RUN, and what it is to predict with a store of that."""
    folder = tmp_path_factory.mktemp("made")
    texts = records(300, longest=20)
    for name, part in {"a": texts[:200], "b": texts[100:], "new": records(60, seed=8, longest=20)}.items():
        data = write_csv(folder / f"{name}.csv", part)
        recycle.json("precompute", data, folder / f"{name}.zarr", "--model", tiny_bert, *SHAPE)
    write_csv(folder / "gone.csv", texts[50:150])
    training = ("--output", folder / "run", "--epochs", 1, "--limit", 40, "--no-tensorboard")
    recycle.json("finetune", folder / "a.csv", folder / "a.zarr", *training)
    return folder


def trial(recycle, made, folder, seed, rounds):
    """Start each command again and again with a signal until it is through, and check after each signal."""
    draw = random.Random(seed)
    new = contents(made / "new.zarr")
    whole = contents(made / "a.zarr") | contents(made / "b.zarr") | new
    after = contents(made / "a.zarr").keys()
    gone = held_by(recycle, made)
    kept = after - gone
    sent, seconds, out = Counter(), {"write-back": 3.0, "remove": 1.0, "merge": 1.0}, folder / "out.csv"
    while sum(sent.values()) < rounds:
        store = folder / "a.zarr"
        shutil.copytree(made / "a.zarr", store)
        writing = ("predict", made / "new.csv", made / "run", "--store", store, "--write-back", "--output", out)
        commands = {
            "write-back": (*writing, *ALONE),
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
                assert not out.exists() or len(out.read_text().splitlines()) == 61, "predictions are whole or not there"
                if done.code == 0:
                    break
                assert done.code in (-number, 130), done
                sent[name, number.name] += 1
        assert recycle("store", "verify", store).code == 0
        recycle.json("store", "gc", store)
        found = contents(store)
        stay = kept | contents(made / "b.zarr").keys() | new.keys()
        assert found == {key: rows for key, rows in whole.items() if key in stay}
        assert not [entry for entry in (store / "tmp").iterdir() if entry.is_dir()]
        assert sorted(entry.name for entry in folder.iterdir() if entry.name.startswith(".")) == killed_at(out)
        shutil.rmtree(store)
        out.unlink()
    return sent


def killed_at(out):
    """What kills leave beside predictions: unfinished files of names of their own, which nobody takes for whole."""
    return sorted(entry.name for entry in out.parent.glob(f".{out.name}.*.partial"))


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
    assert {name for name, _ in sent} == {"write-back", "remove", "merge"}
