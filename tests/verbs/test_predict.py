"""Hits, misses and no store give one answer: that of the checkpoint loaded by transformers."""

import csv
import json
from dataclasses import replace
from functools import partialmethod
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import transformers

from recycle_cli.errors import DamageError, MismatchError, StoreError, UsageError
from recycle_cli.keys import Sample, keys_of
from recycle_cli.settings import CorpusSettings, ModelSettings, PrecomputeSettings, PredictSettings, TrainingSettings
from recycle_cli.store import Store
from recycle_cli.trunk import underway as filling
from recycle_cli.verbs.finetune import Job, finetune
from recycle_cli.verbs.precompute import precompute
from recycle_cli.verbs.predict import predict
from tests.contents import contents
from tests.records import records, write_csv

TRAIN, TEST = records(50), records(40, seed=1, longest=30)
ROUNDING = {"float32": 1e-5, "float16": 5e-3, "bfloat16": 5e-2, "int8": 0.3, "int4": 0.9}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def model(tiny_bert):
    return ModelSettings(str(tiny_bert), None, 16)


@pytest.fixture(scope="module")
def run(folder, model):
    train = CorpusSettings((str(write_csv(folder / "train.csv", TRAIN)),))
    job = Job(train, str(folder / "run"), cut="2", model_named=True, tensorboard=False)
    finetune(job, model, TrainingSettings(epochs=4, batch_size=8, learning_rate=5e-3))
    return str(folder / "run")


@pytest.fixture(scope="module")
def test(folder):
    return CorpusSettings((str(write_csv(folder / "test.csv", TEST)),))


def fill(corpus, path, model, dtype="float32"):
    precompute(corpus, str(path), model, PrecomputeSettings(("2",), dtype))
    return str(path)


def score(data, run, output, store=None, **options):
    report = predict(data, run, store and str(store), str(output), ModelSettings(run), PredictSettings(**options))
    with output.open(encoding="utf-8", newline="") as file:
        return report, list(csv.DictReader(file))


def scores(rows):
    return np.array([[float(value) for name, value in row.items() if name.startswith("score_")] for row in rows])


def test_logits_are_those_of_the_checkpoint(run, test, tmp_path):
    _, rows = score(test, run, tmp_path / "out.csv")
    network = transformers.AutoModelForSequenceClassification.from_pretrained(run).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(run)
    with torch.no_grad():
        for record, row in zip(TEST, rows, strict=True):
            logits = network(**tokenizer(record["text"], truncation=True, return_tensors="pt")).logits
            expected = torch.softmax(logits, 1)[0].numpy()
            np.testing.assert_allclose(scores([row])[0], expected, atol=1e-5)
            assert row["label"] == network.config.id2label[int(logits.argmax())]


def test_the_pipeline_of_transformers_agrees(run, test, tmp_path):
    """Texts longer than the run's 16 tokens among them: the saved tokenizer truncates as we do."""
    _, rows = score(test, run, tmp_path / "out.csv")
    pipeline = transformers.pipeline("text-classification", run, device="cpu")
    found = pipeline([record["text"] for record in TEST], truncation=True)
    assert any(len(record["text"].split()) > 20 for record in TEST)
    assert [one["label"] for one in found] == [row["label"] for row in rows]
    np.testing.assert_allclose([one["score"] for one in found], [float(row["score"]) for row in rows], atol=1e-5)


def test_the_metrics_are_those_of_the_file(run, test, tmp_path):
    report, rows = score(test, run, tmp_path / "out.csv")
    right = np.mean([row["label"] == record["label"] for row, record in zip(rows, TEST, strict=True)])
    assert report.metrics["accuracy"] == pytest.approx(right)
    assert report.no_metrics is None


@pytest.mark.parametrize(
    "dtype",
    [pytest.param(dtype, marks=pytest.mark.long if dtype in ("bfloat16", "int8") else ()) for dtype in ROUNDING],
)
def test_hits_misses_and_no_store_agree(run, test, model, tmp_path, dtype):
    _, plain = score(test, run, tmp_path / "plain.csv")
    full = fill(test, tmp_path / "full", model, dtype)
    half = fill(replace(test, limit=20), tmp_path / "half", model, dtype)
    other = fill(CorpusSettings((str(write_csv(tmp_path / "o.csv", TRAIN)),)), tmp_path / "other", model, dtype)
    hits, hit_rows = score(test, run, tmp_path / "hits.csv", full)
    mixed, mixed_rows = score(test, run, tmp_path / "mixed.csv", half)
    misses, miss_rows = score(test, run, tmp_path / "misses.csv", other)
    assert [(one.hits, one.misses) for one in (hits, mixed, misses)] == [(40, 0), (20, 20), (0, 40)]
    assert [one.hit_share for one in (hits, mixed, misses)] == [1.0, 0.5, 0.0]
    np.testing.assert_allclose(scores(hit_rows), scores(miss_rows), atol=1e-5)
    np.testing.assert_allclose(scores(hit_rows), scores(mixed_rows), atol=1e-5)
    np.testing.assert_allclose(scores(hit_rows), scores(plain), atol=ROUNDING[dtype])
    sure = np.abs(np.diff(np.sort(scores(plain))[:, -2:])[:, 0]) > 2 * ROUNDING[dtype]
    plain_labels, *labels = ([row["label"] for row in rows] for rows in (plain, hit_rows, mixed_rows, miss_rows))
    assert labels[0] == labels[1] == labels[2]
    pairs = zip(plain_labels, labels[0], sure, strict=True)
    assert all(one == other for one, other, certain in pairs if certain)
    assert sure.sum() > {"float32": 35, "float16": 30, "bfloat16": 10}.get(dtype, -1)


def overwrite(path, number, value):
    """Put `value` into all rows of a record of TEST, behind the store's back."""
    store = Store.open(path)
    (position,) = store.lookup(*keys_of([Sample(str(number), {"text": TEST[number]["text"]})])).tolist()
    (segment,) = store.segments
    start, stop = segment.offsets[position : position + 2].tolist()
    rows = np.full((stop - start, *store.row_shape("2")), value, "<f4")
    with Path(segment.where("cuts/2/values/c.0.0")).open("r+b") as file:
        file.seek(start * rows[0].nbytes)
        file.write(rows.tobytes())


def test_stored_rows_that_are_not_the_trunks_are_refused_before_an_answer(run, test, model, tmp_path):
    store = fill(test, tmp_path / "store", model)
    overwrite(store, 0, 0.5)
    with pytest.raises(MismatchError, match="record 0 are not what the trunk gives now"):
        score(test, run, tmp_path / "out.csv", store)
    assert not list(tmp_path.glob("out.csv*"))
    report, _ = score(test, run, tmp_path / "out.csv", store, parity_check=False)
    assert report.hits == len(TEST)


@pytest.mark.parametrize("checked", [True, False])
def test_stored_rows_that_are_no_numbers_give_no_answer(run, test, model, tmp_path, checked):
    store = fill(test, tmp_path / "store", model)
    overwrite(store, 1, np.nan)  # none of those that the parity check takes
    with pytest.raises(DamageError, match=r"record 1 give no number.*store verify --repair"):
        score(test, run, tmp_path / "out.csv", store, parity_check=checked)
    assert not list(tmp_path.glob("out.csv*"))


def test_write_back_remembers_little_and_still_doubles_nothing(run, test, model, tmp_path, monkeypatch):
    monkeypatch.setattr(filling, "SEEN_LIMIT", 5)
    monkeypatch.setattr(Store, "writer", partialmethod(Store.writer, segment_bytes=1000))
    store = fill(replace(test, limit=4), tmp_path / "store", model, "float16")
    twice = replace(test, source=test.source * 2)
    found, _ = score(twice, run, tmp_path / "1.csv", store, write_back=True, window=8, batch_tokens=64)
    assert (found.samples, found.hits) == (80, 8)
    assert len(contents(store)) == 40


@pytest.mark.parametrize("dtype", ["float16", "int4"])
def test_write_back_makes_the_next_prediction_all_hits(run, test, model, tmp_path, dtype):
    store = fill(replace(test, limit=10), tmp_path / "store", model, dtype)
    twice = CorpusSettings((*test.source, str(write_csv(tmp_path / "again.csv", TEST[20:]))))
    first, rows = score(twice, run, tmp_path / "1.csv", store, write_back=True, window=16)
    assert (first.samples, first.hits) == (60, 10)
    assert len(contents(store)) == 40
    second, again = score(twice, run, tmp_path / "2.csv", store, write_back=True)
    assert (second.hits, second.misses) == (60, 0)
    np.testing.assert_allclose(scores(rows), scores(again), atol=1e-5)
    assert contents(store).keys() == contents(fill(test, tmp_path / "whole", model, dtype)).keys()


@pytest.mark.parametrize("options", [{"window": 7}, {"batch_tokens": 1}, {"window": 1}])
def test_the_corpus_order_is_kept_whatever_the_batches(run, test, model, tmp_path, options):
    store = fill(replace(test, limit=20), tmp_path / "store", model)
    _, plain = score(test, run, tmp_path / "plain.csv")
    _, rows = score(test, run, tmp_path / "out.csv", store, **options)
    assert [row["id"] for row in rows] == [str(number) for number in range(40)]
    np.testing.assert_allclose(scores(rows), scores(plain), atol=1e-5)


def test_the_kinds_of_output_say_the_same(run, test, tmp_path):
    _, rows = score(test, run, tmp_path / "out.csv")
    for ending in ("jsonl", "parquet"):
        output = tmp_path / f"out.{ending}"
        predict(test, run, None, str(output), ModelSettings(run), PredictSettings())
        if ending == "jsonl":
            read = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
        else:
            read = pq.read_table(output).to_pylist()
        assert [one["label"] for one in read] == [row["label"] for row in rows]
        assert list(read[0]) == list(rows[0])
        np.testing.assert_allclose(scores(read), scores(rows), atol=1e-6)


def test_data_without_labels_get_predictions_and_no_metrics(run, tmp_path):
    data = CorpusSettings((str(write_csv(tmp_path / "t.csv", [{"text": one["text"]} for one in TEST])),))
    report, rows = score(data, run, tmp_path / "out.csv")
    assert (report.metrics, report.no_metrics) == (None, "no column of labels was found; --label-column names one")
    assert len(rows) == 40
    write_csv(tmp_path / "t.csv", [{"text": one["text"], "label": ""} for one in TEST])
    assert score(data, run, tmp_path / "out.csv")[0].no_metrics == "no record has a label in the column 'label'"


@pytest.mark.parametrize("others", [None, "", ["x"], {"name": "x"}])
def test_metrics_of_a_few_records_say_of_how_many(run, test, tmp_path, capsys, others):
    records = [record if place % 8 == 0 else {**record, "label": others} for place, record in enumerate(TEST[:24])]
    (tmp_path / "few.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    report, rows = score(CorpusSettings((str(tmp_path / "few.jsonl"),)), run, tmp_path / "out.csv")
    right = np.mean([rows[place]["label"] == TEST[place]["label"] for place in (0, 8, 16)])
    assert (report.samples, report.labelled_samples) == (24, 3)
    assert report.metrics["accuracy"] == pytest.approx(right)
    said = capsys.readouterr().err
    assert "the metrics are those of 3 of 24 samples" in said
    assert ("21 that cannot be read are left out, the first since column 'label' holds" in said) == bool(others)


def test_labels_none_of_which_can_be_read_give_no_metrics_but_the_reason(run, tmp_path):
    records = [{**record, "label": ["x", "y"]} for record in TEST[:4]]
    (tmp_path / "lists.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    report, _ = score(CorpusSettings((str(tmp_path / "lists.jsonl"),)), run, tmp_path / "out.csv")
    assert (report.metrics, report.labelled_samples) == (None, 0)
    assert "4 that cannot be read are left out, the first since column 'label' holds several" in report.no_metrics


def test_metrics_of_all_records_need_no_words(run, test, tmp_path, capsys):
    report, _ = score(test, run, tmp_path / "out.csv")
    assert report.labelled_samples == report.samples == 40
    assert "the metrics" not in capsys.readouterr().err


def test_labels_that_the_run_does_not_know_give_no_metrics(run, tmp_path):
    data = CorpusSettings((str(write_csv(tmp_path / "t.csv", [{"text": "cell", "label": "sport"}])),))
    report, rows = score(data, run, tmp_path / "out.csv")
    assert (report.metrics, len(rows)) == (None, 1)
    assert "'sport' is not one of the run's classes" in report.no_metrics


def test_pairs_of_texts_end_to_end(model, tmp_path):
    rows = [{"premise": one["text"], "hypothesis": two["text"], "label": one["label"]}
            for one, two in zip(records(40), records(40, seed=5), strict=True)]  # fmt: skip
    data = CorpusSettings((str(write_csv(tmp_path / "pairs.csv", rows)),))
    store = fill(data, tmp_path / "store", model)
    run = str(tmp_path / "run")
    finetune(Job(data, run, store, tensorboard=False), ModelSettings(), TrainingSettings(epochs=2, learning_rate=1e-3))
    hits, one = score(data, run, tmp_path / "hits.csv", store)
    assert (hits.hits, hits.misses) == (40, 0)
    _, two = score(data, run, tmp_path / "none.csv")
    np.testing.assert_allclose(scores(one), scores(two), atol=1e-5)
    pipeline = transformers.pipeline("text-classification", run, device="cpu")
    found = pipeline([{"text": row["premise"], "text_pair": row["hypothesis"]} for row in rows], truncation=True)
    np.testing.assert_allclose([float(row["score"]) for row in one], [one["score"] for one in found], atol=1e-5)


def test_a_store_of_another_cut_or_length_is_refused_by_the_field(run, test, model, tmp_path):
    precompute(test, str(tmp_path / "cut"), model, PrecomputeSettings(("3",), "float32"))
    with pytest.raises(MismatchError, match=r"holds cut 3 of .*; this RUN needs cut 2 of .*: fill a store with"):
        score(test, run, tmp_path / "out.csv", tmp_path / "cut")
    fill(test, tmp_path / "length", replace(model, max_length=12))
    with pytest.raises(MismatchError, match="max_length: 12 in the store, 16 asked for"):
        score(test, run, tmp_path / "out.csv", tmp_path / "length")
    assert not (tmp_path / "out.csv").exists()


def test_a_whole_run_predicts_without_a_store_and_refuses_one(test, model, tmp_path):
    run = str(tmp_path / "run")
    job = Job(test, run, cut="0", model_named=True, tensorboard=False)
    finetune(job, model, TrainingSettings(epochs=1, learning_rate=1e-4))
    assert score(test, run, tmp_path / "out.csv")[0].misses == 40
    store = fill(test, tmp_path / "store", model)
    with pytest.raises(UsageError, match="leave out --store"):
        score(test, run, tmp_path / "out.csv", store)


def test_what_is_no_run_is_refused(test, tmp_path, tiny_bert):
    for path, message in [(tmp_path / "none", "no such run"), (tiny_bert, "is not a finished run")]:
        with pytest.raises(StoreError, match=message):
            score(test, str(path), tmp_path / "out.csv")


def test_write_back_without_a_store_is_refused(run, test, tmp_path):
    with pytest.raises(UsageError, match="--write-back needs a --store"):
        score(test, run, tmp_path / "out.csv", write_back=True)


def test_a_store_whose_rows_are_rounded_in_another_way_is_told(run, test, model, tmp_path, capsys):
    for dtype in ("float32", "int4"):
        fill(test, tmp_path / dtype, model, dtype)
    fill(test, tmp_path / "mixed", replace(model, precision="bfloat16"))
    stored = str(tmp_path / "run")
    job = Job(test, stored, str(tmp_path / "float32"), tensorboard=False)
    finetune(job, ModelSettings(), TrainingSettings(epochs=1))
    for trained, name, held in (  # the RUN `run` was trained on the inputs, in a precision that is not known
        (run, "float32", None),
        (run, "int4", "int4"),
        (stored, "float32", None),
        (stored, "int4", "int4"),
        (stored, "mixed", "float32, computed in bfloat16"),
    ):
        capsys.readouterr()
        assert score(test, trained, tmp_path / "out.csv", tmp_path / name)[0].misses == 0
        told = f"{name} has rows of {held}, and this RUN was trained on rows of float32: scores may differ a little"
        assert (told in capsys.readouterr().err) == (held is not None)
    fill(test, tmp_path / "longer", replace(model, max_length=12), "int4")
    with pytest.raises(MismatchError, match="max_length: 12 in the store"):
        score(test, stored, tmp_path / "out.csv", tmp_path / "longer")
    assert "scores may differ" not in capsys.readouterr().err
