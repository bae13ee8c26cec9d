"""Several labels a record from the corpus to a RUN: lists and separated texts, texts and images."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torchvision
import transformers
from safetensors.torch import load_file

from recycle_cli.corpus import Columns, several_labels
from recycle_cli.errors import DataError, UsageError
from recycle_cli.keys import Sample
from recycle_cli.runs import open_output
from recycle_cli.settings import (
    ClassificationSettings,
    CorpusSettings,
    HeadSettings,
    ImageSettings,
    ModelSettings,
    PrecomputeSettings,
    PredictSettings,
    TrainingSettings,
)
from recycle_cli.verbs.finetune import Job, finetune, finetune_heads
from recycle_cli.verbs.precompute import precompute
from recycle_cli.verbs.predict import predict
from tests.corpora import open_corpus
from tests.records import write_csv
from tests.tasks.corpora import image_rows, several, shapes, write_jsonl
from tests.trainings import losses, stopped_after

TRAIN, TEST = several(120), several(40, seed=1)
SEVERAL = ClassificationSettings(multi_label=True)
SETTINGS = TrainingSettings(epochs=2, batch_size=8, learning_rate=2e-3, task=SEVERAL)
IMAGES = ModelSettings("resnet18", device="cpu", images=ImageSettings("none", (32,), (32,)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("several")


def corpus(path, rows):
    return CorpusSettings((write_jsonl(path, rows),))


@pytest.fixture(scope="module")
def train(folder):
    return corpus(folder / "train.jsonl", TRAIN)


@pytest.fixture(scope="module")
def test(folder):
    return corpus(folder / "test.jsonl", TEST)


@pytest.fixture(scope="module")
def model(tiny_bert):
    return ModelSettings(str(tiny_bert), None, 16)


@pytest.fixture(scope="module")
def store(folder, train, test, model):
    both = CorpusSettings((*train.source, *test.source))
    precompute(both, str(folder / "store"), model, PrecomputeSettings(("2",), "float32"))
    return str(folder / "store")


@pytest.fixture
def fit(train, test, store, model):
    def fit(output, settings=SETTINGS, **changes):
        fields = {"store": store, "evaluation": test, "cut": "2", "model_named": True, **changes}
        return finetune(Job(fields.pop("data", train), str(output), tensorboard=False, **fields), model, settings)

    return fit


@pytest.fixture(scope="module")
def run(folder, train, test, store):
    """A RUN that has learnt, and its report."""
    job = Job(train, str(folder / "run"), store, test, tensorboard=False)
    settings = replace(SETTINGS, epochs=20, learning_rate=5e-3)
    return str(folder / "run"), finetune(job, ModelSettings(), settings)


def score(data, run, output, store=None, **options):
    return predict(data, run, store, str(output), ModelSettings(device="cpu"), PredictSettings(**options))


# The corpus


def labels(source):
    return [one.label for one in open_corpus(str(source), read_label=several_labels, labelled=True)]


def test_labels_are_lists_or_names_with_a_separator_between(tmp_path):
    rows = [{"text": "a", "label": "x|y"}, {"text": "b", "label": " y | z "}, {"text": "c", "label": "|"}]
    expected = [("x", "y"), ("y", "z"), ()]
    assert labels(write_csv(tmp_path / "a.csv", rows)) == expected
    lists = [{"text": "a", "label": ["x", "y"]}, {"text": "b", "label": [" y ", "z", ""]}, {"text": "c", "label": []}]
    assert labels(write_jsonl(tmp_path / "a.jsonl", lists)) == expected
    pq.write_table(pa.Table.from_pylist(lists), tmp_path / "a.parquet")
    assert labels(tmp_path / "a.parquet") == expected
    assert labels(write_jsonl(tmp_path / "b.jsonl", [{"text": "a", "label": [3, 4.0]}, {"text": "b", "label": 5}])) == [
        ("3", "4"),
        ("5",),
    ]


def test_numbers_of_named_classes_become_their_names_in_lists_too(tmp_path):
    from datasets import ClassLabel, Dataset, Features, Sequence, Value

    features = Features({"text": Value("string"), "label": Sequence(ClassLabel(names=["x", "y", "z"]))})
    Dataset.from_dict({"text": ["a", "b"], "label": [[0, 2], []]}, features).save_to_disk(str(tmp_path / "saved"))
    assert labels(tmp_path / "saved") == [("x", "z"), ()]


def test_what_is_predicted_in_csv_can_be_learnt_again(tmp_path):
    with open_output(str(tmp_path / "out.csv"), {"labels": "texts"}) as write:
        samples = [Sample(str(number), {"text": "x"}) for number in range(2)]
        write(samples, [{"labels": ["x", "y"]}, {"labels": []}])
    columns = Columns(text="id", label="labels")
    found = open_corpus(str(tmp_path / "out.csv"), columns, read_label=several_labels, labelled=True)
    assert [sample.label for sample in found] == [("x", "y"), ()]


def test_a_head_passes_over_a_record_whose_label_is_white_space(tmp_path):
    rows = [{"text": "a", "first": "x|y", "second": " "}, {"text": "b", "first": "\t", "second": "|"}]
    columns = Columns(labels=("first", "second"))
    found = open_corpus(str(write_csv(tmp_path / "a.csv", rows)), columns, read_label=several_labels, labelled=True)
    assert [sample.labels for sample in found] == [{"first": ("x", "y")}, {"second": ()}]


@pytest.mark.parametrize(
    ("label", "multi_label", "message"),
    [
        (
            "",
            True,
            r"record 1: no label in column 'label'; a record that has none of the classes is written \[\] as a list",
        ),
        ("[]", True, r"'\[\]', a list written as text; write the names with \| between them \(\| alone for none\)"),
        (" ['a', 'b'] ", True, "a list written as text"),
        (["a|b"], True, r"the name 'a\|b' in a list; \| stands between names where they are text"),
        (" ", True, "no label in column"),
        (None, True, "no label in column"),
        ([{"a": 1}], True, "holds an object, expected a label"),
        (["x", "y"], False, "holds several labels, expected one; add --multi-label"),
    ],
)
def test_labels_that_cannot_be_used(tmp_path, label, multi_label, message):
    rows = [{"text": "a", "label": label}, {"text": "b", "label": ["x"]}]
    data = CorpusSettings((write_jsonl(tmp_path / "a.jsonl", rows),))
    settings = replace(SETTINGS, task=ClassificationSettings(multi_label=multi_label))
    with pytest.raises(DataError, match=message):
        finetune(Job(data, str(tmp_path / "run"), cut="2"), ModelSettings(), settings)


def test_a_class_unseen_in_training_is_named(fit, tmp_path):
    unseen = corpus(tmp_path / "unseen.jsonl", [{"text": "the cell", "labels": ["bio", "sport"]}])
    with pytest.raises(DataError, match=r", record 1: the label 'sport' was not seen in training"):
        fit(tmp_path / "run", evaluation=unseen)


# Training


@pytest.mark.parametrize("weights", [pytest.param("none", marks=pytest.mark.long), "balanced"])
def test_losses_from_the_store_are_those_with_the_frozen_trunk_in_place(fit, tmp_path, weights):
    settings = replace(SETTINGS, task=replace(SEVERAL, class_weights=weights))
    fit(tmp_path / "stored", settings)
    fit(tmp_path / "inplace", settings, store=None)
    stored, inplace = losses(tmp_path / "stored"), losses(tmp_path / "inplace")
    assert len(stored) == 30
    assert stored[0] != stored[-1]
    np.testing.assert_allclose(stored, inplace, rtol=0, atol=1e-5)


def test_it_beats_chance(run):
    """Half of the labels are there: who always says yes has an F1 of 2/3, and a precision of a half."""
    _, report = run
    assert set(report.metrics) == {"macro_f1", "micro_f1", "mean_average_precision", "loss"}
    assert report.metrics["macro_f1"] > 0.75
    assert report.metrics["mean_average_precision"] > 0.75
    assert report.classes == ["art", "bio", "code"]


def test_a_resumed_run_is_the_undisturbed_one(fit, tmp_path):
    fit(tmp_path / "whole")
    with stopped_after(1):
        fit(tmp_path / "parts")
    fit(tmp_path / "parts", resume=True)
    for file in ("metrics.jsonl", "model.safetensors"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "parts" / file).read_bytes()


def test_heads_learn_several_columns_at_once(train, test, store, fit, tmp_path):
    rows = [{**row, "first": row["labels"][:1]} for row in TRAIN]
    data = replace(train, source=(write_jsonl(tmp_path / "two.jsonl", rows),))
    asked = [HeadSettings(name, replace(SETTINGS, order_seed=0), name) for name in ("labels", "first")]
    job = Job(data, str(tmp_path / "runs"), store, tensorboard=False)
    report = finetune_heads(job, ModelSettings(), asked)
    assert [head["samples"] for head in report.heads] == [120, 120]
    fit(tmp_path / "alone", evaluation=None)
    assert losses(tmp_path / "runs" / "labels") == losses(tmp_path / "alone")


# The RUN


def test_a_run_is_what_the_pipeline_of_transformers_takes_for_several_labels(run, test, tmp_path):
    path, _ = run
    config = transformers.AutoModelForSequenceClassification.from_pretrained(path).config
    assert config.problem_type == "multi_label_classification"
    score(test, path, tmp_path / "out.jsonl")
    ours = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    pipeline = transformers.pipeline("text-classification", path, device="cpu", top_k=None)
    theirs = pipeline([row["text"] for row in TEST], truncation=True)
    for mine, found in zip(ours, theirs, strict=True):
        scores = {one["label"]: one["score"] for one in found}
        assert {name: mine[f"score_{name}"] for name in scores} == pytest.approx(scores, abs=1e-5)
        assert mine["labels"] == [name for name in ("art", "bio", "code") if scores[name] >= 0.5]
    assert "may have several" in Path(path, "README.md").read_text()


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_hits_and_misses_give_one_answer_in_every_file(run, test, store, tmp_path, ending):
    path, report = run
    for name, place in (("hits", store), ("misses", None)):
        done = score(test, path, tmp_path / f"{name}{ending}", place)
        assert done.hits == (40 if place else 0)
        assert done.metrics == pytest.approx(report.metrics, abs=1e-5)
    hits, misses = (read(tmp_path / f"{name}{ending}") for name in ("hits", "misses"))
    assert hits == misses
    assert any(len(found) > 1 for found in hits)


def read(path):
    if path.suffix == ".parquet":
        return pq.read_table(path)["labels"].to_pylist()
    if path.suffix == ".jsonl":
        return [json.loads(line)["labels"] for line in path.read_text().splitlines()]
    with path.open(newline="") as file:
        return [[name for name in row["labels"].split("|") if name] for row in csv.DictReader(file)]


def test_the_threshold_is_of_several_labels(run, test, tmp_path, fit):
    path, report = run
    low = score(test, path, tmp_path / "low.jsonl", threshold=0.01)
    assert sum(map(len, read(tmp_path / "low.jsonl"))) > 40
    assert low.metrics["mean_average_precision"] == pytest.approx(report.metrics["mean_average_precision"])
    assert low.metrics["micro_f1"] != report.metrics["micro_f1"]
    rows = [{"text": row["text"], "label": "some" if row["labels"] else "none"} for row in TRAIN]
    single = CorpusSettings((write_jsonl(tmp_path / "single.jsonl", rows),))
    fit(tmp_path / "single", replace(SETTINGS, task=None), data=single, evaluation=None)
    with pytest.raises(UsageError, match=r"--threshold 0\.3: .* does not decide on several labels"):
        score(single, str(tmp_path / "single"), tmp_path / "o.csv", threshold=0.3)
    lists = score(test, str(tmp_path / "single"), tmp_path / "o.csv")
    assert (lists.samples, lists.metrics) == (40, None)


def test_images_have_several_labels_too(tmp_path):
    root = shapes(tmp_path / "shapes")
    data, val = (corpus(tmp_path / f"{name}.jsonl", image_rows(root, name)) for name in ("train", "val"))
    store = str(tmp_path / "store")
    for one in (data, val):
        precompute(one, store, IMAGES, PrecomputeSettings(("layer3",), "float32"))
    job = Job(data, str(tmp_path / "run"), store, val, task="image-classification", tensorboard=False)
    found = finetune(job, ModelSettings(device="cpu"), replace(SETTINGS, mixup=0.2, learning_rate=1e-3))
    assert found.classes == ["circle", "round", "square", "triangle"]
    plain = torchvision.models.resnet18(num_classes=4)
    plain.load_state_dict(load_file(tmp_path / "run" / "model.safetensors"), strict=True)
    for place in (store, None):
        done = score(val, str(tmp_path / "run"), tmp_path / "p.csv", place)
        assert done.metrics == pytest.approx(found.metrics, abs=1e-4)
