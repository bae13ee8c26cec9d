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
from recycle_cli.settings import CorpusSettings, ModelSettings, PrecomputeSettings, SampleSettings, WindowSettings
from tests.records import records, write_csv
from tests.tasks.tagged import tagged, write_conll

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
    with pytest.raises(
        MissingError, match=r"lacks 3 of 23 samples, the first of record 0; run `recycle precompute` over"
    ):
        Activations(other, store, "2")


def test_a_cut_must_be_clear(corpus, store):
    with pytest.raises(UsageError, match="holds the cuts 2, 3; choose one"):
        Activations(corpus, store)
    with pytest.raises(UsageError, match="holds the cuts 2, 3; not 4"):
        Activations(corpus, store, "4")
    assert not Activations(corpus, store, "3")[0]["rows"].equal(Activations(corpus, store, "2")[0]["rows"])


def filled(tmp_path, tiny_bert, source, samples):
    """A corpus, and a store of the samples that a task takes of its records."""
    corpus, store = CorpusSettings((str(source),)), str(tmp_path / "samples")
    settings = PrecomputeSettings(("2",), "float32", samples=samples)
    precompute(corpus, store, ModelSettings(str(tiny_bert), None, 16), settings)
    return corpus, store


def test_the_two_texts_of_a_pair_are_two_items(tmp_path, tiny_bert):
    questions = [{"question": row["text"], "answer": f"{row['text']} cell"} for row in records(6)]
    asked = SampleSettings("pair-similarity")
    corpus, store = filled(tmp_path, tiny_bert, write_csv(tmp_path / "p.csv", questions), asked)
    dataset, opened = Activations(corpus, store, samples=asked), Store.open(store)
    assert len(dataset) == 12
    for number, row in enumerate(questions):
        for part, text in enumerate(row.values()):
            item = dataset[2 * number + part]
            assert (item["id"], item["part"], item["start"], item["label"]) == (str(number), part, 0, None)
            values, _ = opened.gather("2", opened.lookup(*keys_of([Sample("", {"text": text})])))
            assert item["rows"].equal(torch.from_numpy(values[0]))


def test_the_windows_of_a_long_text_are_items_with_their_beginnings(tmp_path, tiny_bert):
    sentences = tagged(8, longest=40)
    asked = SampleSettings("token-classification", WindowSettings(3))
    corpus, store = filled(tmp_path, tiny_bert, write_conll(tmp_path / "w.conll", sentences), asked)
    dataset = Activations(corpus, store, samples=asked)
    assert len(dataset) > len(sentences)
    opened = Store.open(store)
    for place in range(len(dataset)):
        item = dataset[place]
        text = " ".join(sentences[int(item["id"])]["tokens"])
        assert list(item["label"]) == sentences[int(item["id"])]["tags"]
        begins_anew = place == 0 or dataset[place - 1]["id"] != item["id"]
        assert (item["part"] == 0, item["start"] == 0) == (begins_anew, begins_anew)
        # Of the words from `start` on, as many as the window has tokens beside its two special ones.
        window = " ".join(text[item["start"] :].split()[: len(item["rows"]) - 2])
        assert opened.lookup(*keys_of([Sample("", {"text": window})]))[0] >= 0
    batch = Activations.collate([dataset[0], dataset[len(dataset) - 1]])
    assert batch["part"][0] == 0
    assert len(batch["start"]) == len(batch["lengths"]) == 2


def test_samples_that_the_store_lacks_are_told_with_their_task(tmp_path, tiny_bert, corpus, store):
    path = write_csv(tmp_path / "p.csv", [{"question": "new", "answer": "good cell"}])
    with pytest.raises(MissingError, match=r"lacks 2 of 2 samples, .* --task pair-similarity` over this corpus"):
        Activations(CorpusSettings((str(path),)), store, "2", SampleSettings("pair-similarity"))
    with pytest.raises(UsageError, match="--stride: a record is its own sample here"):
        Activations(corpus, store, "2", SampleSettings(None, WindowSettings(3)))
