"""A flipped bit in any file of a RUN or of a checkpoint is found when it is read, and the file is named."""

import json
import random
from contextlib import contextmanager

import pytest
import torch

from recycle_cli import runs
from recycle_cli.errors import DamageError, StorageError, StoreError
from recycle_cli.runtime.random_generators import Randomness
from tests.records import records, write_csv
from tests.runs.test_runs import CPU, SCALER, trained

EVERY = pytest.param(1 << 20, marks=pytest.mark.long)
"""All bytes: `python -m pytest -m long tests/runs/test_flipped.py` flips a bit in each of the small files."""

INERT = ("README.md", "config.toml", "metrics.jsonl")
"""Files of a RUN that no prediction depends on."""


@pytest.fixture(scope="module")
def place(recycle, tiny_bert, tmp_path_factory):
    """A folder with a corpus, and RUNs that were trained from its texts: one plain, one with its adapter apart."""
    folder = tmp_path_factory.mktemp("flipped")
    write_csv(folder / "train.csv", records(12))
    training = ("finetune", "train.csv", "--model", tiny_bert, "--cut", 3, "--max-length", 16, "--epochs", 1)
    recycle.json(*training, "--output", "run", cwd=folder)
    recycle.json(*training, "--output", "apart", "--adapter", "bottleneck", "--adapter-save", "apart", cwd=folder)
    return folder


@contextmanager
def flipped(path, at, bit):
    """A bit of a file is flipped inside."""
    content = path.read_bytes()
    path.write_bytes(content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :])
    yield
    path.write_bytes(content)


def places(path, count, whole=0):
    """The last byte of a file, all up to `whole`, and others at random, each with one of its bits."""
    size, draw = path.stat().st_size, random.Random(path.name)
    found = {size - 1, *range(min(whole, size)), *(draw.randrange(size) for _ in range(count))}
    return [(at, draw.randrange(8)) for at in sorted(found)]


@pytest.mark.parametrize("whole", [60, EVERY])
@pytest.mark.parametrize("name", ["run", "apart"])
def test_in_every_file_of_a_run(place, capsys, name, whole):
    run = place / name
    files = [path for path in run.rglob("*") if path.is_file() and path.parent.name != "tensorboard"]
    assert len(files) >= 7
    for path in files:
        for at, bit in places(path, 6, whole=whole if path.name == "recycle.json" else 1):
            with flipped(path, at, bit):
                if path.parent == run and path.name in INERT:
                    runs.check_files(run, runs.read_info(run))
                    assert str(path) in capsys.readouterr().err
                    continue
                with pytest.raises(StoreError, match=path.name):
                    runs.check_files(run, runs.read_info(run))
    runs.check_files(run, runs.read_info(run))


def test_predict_ends_with_4_and_names_the_file(recycle, place):
    for name in ("run/model.safetensors", "run/tokenizer.json", "apart/base/config.json"):
        path = place / name
        with flipped(path, path.stat().st_size // 2, 3):
            done = recycle("predict", "train.csv", name.partition("/")[0], cwd=place)
        assert done.code == 4
        assert done.err.count("\n") == 1
        assert f"{name} is damaged" in done.err
    (place / "run" / "config.json").rename(place / "config.json")
    done = recycle("predict", "train.csv", "run", cwd=place)
    (place / "config.json").rename(place / "run" / "config.json")
    assert (done.code, "config.json is missing" in done.err) == (4, True)


def test_a_run_of_version_1_is_read_as_it_is(place, tmp_path):
    info = runs.read_info(place / "run")
    old = {name: value for name, value in info.to_json().items() if name != "files"} | {"version": 1}
    (tmp_path / "recycle.json").write_text(json.dumps(old))
    assert runs.read_info(tmp_path).files == {}
    runs.check_files(tmp_path, runs.read_info(tmp_path))


@pytest.fixture
def checkpoint(tmp_path):
    """A training with a state, best weights and a log."""
    place = runs.claim(str(tmp_path / "run"), overwrite=False, resume=False)
    weights, optimizer = trained(0)
    with runs.begin(place, {"seed": 1}, resume=False):
        (place.work / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n')
        runs.save_best(place.work, weights, 1)
        state = runs.State(step=1, lines=1, best={"loss": 0.5}, best_step=1)
        runs.save_state(place.work, state, weights, optimizer, SCALER, Randomness(0, CPU), {"seed": 1})
    return place


def read(place):
    """All of a checkpoint that a resume reads."""
    weights, optimizer = trained(1)
    with runs.begin(place, {"seed": 1}, resume=True):
        state = runs.load_state(place.work, weights, optimizer, SCALER, Randomness(0, CPU), {"seed": 1})
        assert state is not None
        runs.load_best(place.work, weights, state.best_step)
    return weights


@pytest.mark.parametrize("whole", [60, EVERY])
def test_in_every_file_of_a_checkpoint(checkpoint, whole):
    weights = read(checkpoint)
    assert all(torch.equal(weights[name], weight) for name, weight in trained(0)[0].items())
    files = ["checkpoint/training.json", "checkpoint/state.safetensors", "checkpoint/best.safetensors", "metrics.jsonl"]
    for name in files:
        path = checkpoint.work / name
        for at, bit in places(path, 20, whole=whole):
            with flipped(path, at, bit), pytest.raises(StoreError, match=path.name):
                read(checkpoint)
    read(checkpoint)


@pytest.mark.parametrize("name", ["state.safetensors", "best.safetensors"])
def test_tensors_of_another_training_are_refused(checkpoint, tmp_path, name):
    other = runs.claim(str(tmp_path / "other"), overwrite=False, resume=False)
    with runs.begin(other, {"seed": 1}, resume=False):
        pass
    (checkpoint.work / "metrics.jsonl").rename(other.work / "metrics.jsonl")
    for file in ("state.safetensors", "best.safetensors"):
        source = checkpoint.work / "checkpoint" / file
        if file == name:
            source.rename(other.work / "checkpoint" / file)
    take = (lambda: read(other)) if name.startswith("state") else lambda: runs.load_best(other.work, trained(1)[0], 1)
    with pytest.raises(StoreError, match=rf"{name} is of another training"):
        take()


def test_best_weights_of_another_step_or_none_are_refused(checkpoint):
    with pytest.raises(StoreError, match="has the weights of step 1, expected 2"):
        runs.load_best(checkpoint.work, trained(1)[0], 2)
    (checkpoint.work / "checkpoint" / "best.safetensors").unlink()
    with pytest.raises(DamageError, match=r"best\.safetensors is missing"):
        runs.load_best(checkpoint.work, trained(1)[0], 1)


@pytest.mark.parametrize(
    "error", [RuntimeError("unable to open file: Input/output error (5)"), OSError(5, "I/O error")]
)
def test_a_checkpoint_that_cannot_be_opened_is_not_called_damaged(checkpoint, monkeypatch, error):
    def refuses(path, framework):
        raise error

    monkeypatch.setattr("recycle_cli.runs.checkpoint.safe_open", refuses)
    with pytest.raises(StorageError, match=r"state\.safetensors cannot be opened \(.*error.*\); make it readable"):
        read(checkpoint)
    with pytest.raises(StorageError, match=r"best\.safetensors cannot be opened"):
        runs.load_best(checkpoint.work, trained(1)[0], 1)
