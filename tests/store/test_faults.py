"""Each call of the commands that change something fails once: one error, nothing lost, and a second run completes it.

Of each kind of call two fail here, and each one in `python -m pytest -m long tests/store/test_faults.py`.
"""

import errno
import shutil
from functools import partial
from pathlib import Path

import pytest

from recycle_cli.errors import RecycleError
from recycle_cli.store import Store, export, gc, merge, remove, verify
from tests.contents import contents

from .corpora import Corpus
from .faults import CHANGING, failing

CODES = (errno.EIO, errno.ENOSPC)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr("recycle_cli.store.patient.PAUSES", ())


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store with duplicates, one with a damaged segment and a root to be mended, and one to be merged."""
    folder, corpus = tmp_path_factory.mktemp("made"), Corpus()
    for numbers in (range(6), range(4, 9)):
        corpus.store(folder / "s.zarr", numbers)
    corpus.store(folder / "damaged.zarr", range(6), segment_bytes=1, batch=3)
    victim = max((folder / "damaged.zarr/segments").glob("2*")) / "cuts/2/values/c.0.0"
    victim.write_bytes(bytes(victim.stat().st_size))
    root = folder / "damaged.zarr/zarr.json"
    root.write_bytes(root.read_bytes().replace(b'"version":1', b'"version":9'))
    corpus.store(folder / "other.zarr", range(7, 14))
    return folder


def repair(path):
    verify(path, repair=True, workers=1)


def removal(path):
    remove(Store.open(path), [Corpus().keys([2, 5, 8])[0]])


def merging(path):
    merge(str(Path(path).with_name("other.zarr")), path)


def exporting(path):
    export(path, str(Path(path).with_name("x.safetensors")))


COMMANDS = {
    # the command, its store, the samples that the store must hold at any time, and in the end
    "gc": (gc, "s.zarr", range(9), range(9)),
    "verify": (repair, "damaged.zarr", range(3), range(3)),
    "remove": (removal, "s.zarr", [0, 1, 3, 4, 6, 7], [0, 1, 3, 4, 6, 7]),
    "merge": (merging, "s.zarr", range(9), range(14)),
    "export": (exporting, "s.zarr", range(9), range(9)),
}


def attempt(made, folder, command, fault):
    """Run the command once with a fault, check what is left, and run it again without. Returns the fault's calls."""
    run, name, always, finally_ = COMMANDS[command]
    for needed in {name, "other.zarr" if command == "merge" else name}:
        shutil.copytree(made / needed, folder / needed)
    path, corpus = str(folder / name), Corpus()
    with fault(folder) as calls:
        try:
            run(path)
        except RecycleError as error:
            assert "\n" not in str(error)  # noqa: PT017 - some faults do no harm
    if command != "verify":
        corpus.check(Store.open(path), always)
    out = folder / "x.safetensors"
    if command == "export":
        assert not [entry.name for entry in folder.iterdir() if entry.name.startswith(".")] or calls.failed
        out.unlink(missing_ok=True)
    run(path)
    corpus.check(Store.open(path), finally_)
    assert verify(path)["damaged"] == []
    gc(path)
    assert contents(path).keys() == {key.tobytes() for key in corpus.keys(finally_)[0]}
    assert sorted(entry.name for entry in (folder / name / "tmp").iterdir()) == ["maintenance", "zarr.json"]
    assert command != "export" or out.exists()
    shutil.rmtree(folder)
    return calls


def sweep(made, tmp_path, command, code, pick):
    counted = attempt(made, tmp_path / "count", command, failing).counts
    assert counted["write"] + counted["pwrite"]
    failed = 0
    for call in CHANGING:
        for at in pick(counted[call]):
            fault = partial(failing, call=call, code=code, at=at)
            failed += attempt(made, tmp_path / f"{call}-{at}", command, fault).failed
    assert failed >= 5


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("command", COMMANDS)
def test_one_call_of_each_kind_fails_once(made, tmp_path, command, code):
    last = code == errno.ENOSPC  # both codes together reach two places

    def one(count):
        return [count if last else (count + 1) // 2][: min(count, 1)]

    sweep(made, tmp_path, command, code, one)


@pytest.mark.long
@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("command", COMMANDS)
def test_each_call_fails_once(made, tmp_path, command, code):
    sweep(made, tmp_path, command, code, lambda count: range(1, count + 1))
