"""The public face: what `docs/python.md` shows runs as it stands, and a dataset has the rows of its records."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

import recycle_cli
from recycle_cli import Activations, Store, precompute
from recycle_cli.errors import MissingError, UsageError
from recycle_cli.keys import Sample, keys_of
from recycle_cli.settings import CorpusSettings, ModelSettings, PrecomputeSettings
from tests.records import records, write_csv

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return CorpusSettings((str(write_csv(tmp_path_factory.mktemp("data") / "d.csv", records(20))),))


@pytest.fixture(scope="module")
def store(corpus, tiny_bert, tmp_path_factory):
    path = str(tmp_path_factory.mktemp("store") / "store")
    precompute(corpus, path, ModelSettings(str(tiny_bert), None, 16), PrecomputeSettings(("2", "3"), "bfloat16"))
    return path


@pytest.mark.long
def test_the_page_runs_as_it_stands(minilm, tmp_path, monkeypatch):
    shutil.copytree(ROOT / "sample_data", tmp_path / "sample_data")
    code = "\n".join(re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # other tests run beside it
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "120 of 120 from the store" in done.stdout


def test_every_name_is_there_and_is_no_module():
    for name in recycle_cli.__all__:
        assert not isinstance(getattr(recycle_cli, name), type(recycle_cli)), name
    with pytest.raises(AttributeError, match="no attribute 'train'"):
        recycle_cli.train  # noqa: B018


def test_an_item_has_the_rows_that_the_store_has_of_its_record(corpus, store):
    dataset, opened = Activations(corpus, store, "2"), Store.open(store)
    assert len(dataset) == 20
    for place, record in enumerate(records(20)):
        item = dataset[place]
        position = opened.lookup(*keys_of([Sample("", {"text": record["text"]})]))
        values, _ = opened.gather("2", position)
        expected = torch.from_numpy(values[0]).view(torch.bfloat16).float()
        assert item["rows"].equal(expected)
        assert (item["id"], item["label"]) == (str(place), record["label"])
    with pytest.raises(IndexError):
        dataset[20]


def test_a_loader_of_several_processes_gives_padded_batches(corpus, store):
    dataset = Activations(corpus, store, "2")
    loader = DataLoader(dataset, batch_size=7, collate_fn=Activations.collate, num_workers=2)
    seen = 0
    for batch in loader:
        for own, length, name in zip(batch["rows"], batch["lengths"], batch["id"], strict=True):
            assert own[:length].equal(dataset[int(name)]["rows"])
            assert not own[length:].any()
            seen += 1
    assert seen == 20


def test_a_record_that_the_store_lacks_is_an_error_at_once(corpus, store, tmp_path):
    other = CorpusSettings((str(write_csv(tmp_path / "o.csv", records(3, seed=5))), *corpus.source))
    with pytest.raises(MissingError, match=r"lacks 3 of 23 records, the first 0; run `recycle precompute`"):
        Activations(other, store, "2")


def test_a_cut_must_be_clear(corpus, store):
    with pytest.raises(UsageError, match="holds the cuts 2, 3; choose one"):
        Activations(corpus, store)
    with pytest.raises(UsageError, match="holds the cuts 2, 3; not 4"):
        Activations(corpus, store, "4")
    assert not Activations(corpus, store, "3")[0]["rows"].equal(Activations(corpus, store, "2")[0]["rows"])
