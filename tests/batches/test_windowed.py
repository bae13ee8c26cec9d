"""Training from stores that no memory map serves: in windows, or all in memory."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from recycle_cli.batches import InOrder, Shuffled, StoredRows, WindowedRows, stored_source
from recycle_cli.settings import CorpusSettings, ModelSettings, PrecomputeSettings, TrainingSettings
from recycle_cli.store import Store
from recycle_cli.verbs.finetune import Job, finetune
from recycle_cli.verbs.precompute import precompute
from tests.records import records, write_csv
from tests.trainings import log_of, stopped_after

SETTINGS = TrainingSettings(epochs=2, batch_size=8, learning_rate=5e-3)
TIGHT = 12_000


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return CorpusSettings((str(write_csv(tmp_path_factory.mktemp("data") / "train.csv", records(90))),))


@pytest.fixture(scope="module", params=["none", "lz4"])
def store(request, tmp_path_factory, data, tiny_bert):
    path = str(tmp_path_factory.mktemp("store") / "store")
    filling = PrecomputeSettings(("2",), "float32", batch_tokens=80, segment_bytes=20_000, codec=request.param)
    precompute(data, path, ModelSettings(str(tiny_bert), None, 16), filling)
    return path


def rows_of(path, repeat=1):
    store = Store.open(path)
    return StoredRows.of(store, "2", np.tile(np.arange(len(store)), repeat))


def contents(source, batches):
    """What each member's rows sum to."""
    found = {}
    for members, batch in batches:
        for place, rows, length in zip(members.tolist(), batch["rows"], batch["lengths"].tolist(), strict=True):
            assert place not in found, "handed out twice"
            assert not rows[length:].any()
            found[place] = float(rows.double().sum())
    return found


@pytest.mark.parametrize("repeat", [1, 3])
def test_windows_hand_out_every_member_once_with_its_own_rows(store, repeat):
    rows = rows_of(store, repeat)
    windowed = WindowedRows(rows, TIGHT)
    epoch = windowed.epoch(Shuffled(8, 3), 0)
    sizes = sorted(map(len, epoch.batches), reverse=True)
    assert sizes == [8] * (len(rows.lengths) // 8) + [len(rows.lengths) % 8] * (len(rows.lengths) % 8 > 0)
    plain = contents(rows, rows.epoch(InOrder(16), 0).load(0))
    assert contents(windowed, epoch.load(0)) == plain
    assert contents(windowed, windowed.epoch(InOrder(16), 0).load(0)) == plain


def test_an_epoch_read_from_a_later_batch_goes_on_where_it_was(store):
    epoch = WindowedRows(rows_of(store), TIGHT).epoch(Shuffled(8, 3), 1)
    whole, rest = list(epoch.load(0)), list(epoch.load(5))
    assert [members.tolist() for members, _ in whole] == [batch.tolist() for batch in epoch.batches]
    assert len(rest) == len(whole) - 5
    for (members, batch), (again, same) in zip(whole[5:], rest, strict=True):
        assert members.tolist() == again.tolist()
        assert torch.equal(batch["rows"], same["rows"])


def test_epochs_differ_and_windows_mix(store):
    windowed = WindowedRows(rows_of(store), TIGHT)
    first, second = (np.concatenate(windowed.epoch(Shuffled(8, 3), number).batches) for number in (0, 1))
    assert first.tolist() != second.tolist()
    assert sorted(first) == sorted(second)


def test_rows_in_memory_are_those_of_the_store(store):
    rows = rows_of(store, repeat=2)
    held = stored_source(rows, None, in_memory=True)
    plain = rows.epoch(Shuffled(8, 0), 0)
    for (members, batch), (again, same) in zip(plain.load(0), held.epoch(Shuffled(8, 0), 0).load(0), strict=True):
        assert members.tolist() == again.tolist()
        assert torch.equal(batch["rows"], same["rows"])


def test_a_compressed_store_is_read_in_windows_unasked_and_a_plain_one_through_the_map(store):
    rows = rows_of(store)
    mapped = rows.store.is_mapped("2")
    assert isinstance(stored_source(rows, None), StoredRows if mapped else WindowedRows)
    assert isinstance(stored_source(rows, 1 << 20), WindowedRows)


def test_a_store_larger_than_the_free_memory_is_read_in_windows(store, monkeypatch):
    monkeypatch.setattr("recycle_cli.store.store.free_memory", lambda: 1000)
    assert isinstance(stored_source(rows_of(store), None), WindowedRows)


def fit(data, store, output, **changes):
    job = Job(data, str(output), store, data, tensorboard=False, **changes)
    return finetune(job, ModelSettings(), replace(SETTINGS, memory=TIGHT))


def test_a_windowed_training_learns_and_resumes_exactly(data, store, tmp_path):
    report = fit(data, store, tmp_path / "whole")
    lines = log_of(tmp_path / "whole")
    assert sum(line["samples"] for line in lines if "samples" in line) == 2 * report.samples
    with stopped_after(1):
        fit(data, store, tmp_path / "parts")
    fit(data, store, tmp_path / "parts", resume=True)
    whole, parts = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())
