"""Regression: numbers read, learnt from a store as in place, scored by their definitions, and saved as an ordinary
checkpoint."""

import csv
import json
import math
import warnings
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import transformers

from recycle_cli.corpus import read_numbers
from recycle_cli.corpus.records import BadRecord
from recycle_cli.errors import DataError, UsageError
from recycle_cli.models.outputs import Outputs
from recycle_cli.settings import CorpusSettings, ModelSettings, RegressionSettings
from recycle_cli.tasks import Regression
from tests.conftest import tiny_config
from tests.records import records, write_csv
from tests.tasks.corpora import write_jsonl
from tests.tasks.regressions import numbered_texts, write_pairs
from tests.trainings import SETTINGS, Tried, learns_as_in_place, log_of, resumes_exactly, trained


def one_number(folder):
    return [write_csv(folder / f"{seed}.csv", numbered_texts(40 - 28 * seed, seed)) for seed in (0, 1)], ()


def pairs(folder):
    return [write_pairs(folder / f"{seed}.csv", 40 - 28 * seed, seed) for seed in (0, 1)], ()


def two_columns(folder):
    return one_number(folder)[0], ("label", "length")


def lists(folder):
    found = [
        write_jsonl(
            folder / f"{seed}.jsonl",
            [
                {"text": row["text"], "label": [row["label"], row["length"], 1]}
                for row in numbered_texts(40 - 28 * seed, seed)
            ],
        )
        for seed in (0, 1)
    ]
    return found, ()


KINDS = (lists, one_number, pairs, two_columns)


@pytest.fixture(params=KINDS, scope="module")
def tried(request, tmp_path_factory, tiny_bert):
    """Numbers in a list, one number of a text, of a pair, and numbers in two columns."""
    folder = tmp_path_factory.mktemp("regression")
    paths, columns = request.param(folder)
    train, test = (CorpusSettings((str(path),)) for path in paths)
    found = Tried(
        "regression", RegressionSettings(columns), folder, ModelSettings(str(tiny_bert), None, 40), train, test
    )
    found.fill()
    return found


def test_it_learns_from_a_store_as_in_place_and_is_an_ordinary_checkpoint(tried):
    report, _ = learns_as_in_place(tried)
    loads_as_transformers_does(tried, report)


@pytest.mark.parametrize(
    "tried", [lists, *(pytest.param(kind, marks=pytest.mark.long) for kind in KINDS[1:])], indirect=True
)
def test_it_resumes_exactly(tried):
    resumes_exactly(tried)


def loads_as_transformers_does(tried, report):
    """The same numbers from the store, without it, and by transformers' own classes."""
    hits, stored = tried.score("stored", tried.store)
    misses, plain = tried.score("stored")
    assert (hits.misses, misses.hits) == (0, 0)
    assert hits.metrics == pytest.approx(report.metrics, abs=1e-5)
    run = tried.folder / "stored"
    model = transformers.AutoModelForSequenceClassification.from_pretrained(run)
    tokenizer = transformers.AutoTokenizer.from_pretrained(run)
    names = report.classes
    assert (model.config.problem_type, model.config.num_labels) == ("regression", len(names))
    pipe = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")
    for row, one, other in zip(rows_of(tried.test), stored, plain, strict=True):
        texts = {"text": row["text"]} if "text" in row else {"text": row["sentence1"], "text_pair": row["sentence2"]}
        found = {answer["label"]: answer["score"] for answer in pipe(texts, top_k=None, truncation=True)}
        for name in names:
            column = name if name == "number" else f"number_{name}"
            assert one[column] == pytest.approx(found[name], abs=1e-4)
            assert other[column] == pytest.approx(found[name], abs=1e-4)


def rows_of(corpus):
    path = corpus.source[0]
    with open(path, encoding="utf-8", newline="") as file:  # noqa: PTH123 - a path as text
        return list(csv.DictReader(file)) if path.endswith(".csv") else [json.loads(line) for line in file]


def test_predictions_without_labels_and_with_others(tried):
    trained(tried)
    bare = [{key: value for key, value in row.items() if key != "label"} for row in rows_of(tried.test)]
    report, found = tried.score("stored", test=CorpusSettings((write_jsonl(tried.folder / "bare.jsonl", bare),)))
    assert report.metrics is None
    assert report.no_metrics
    assert len(found) == len(bare)
    if not tried.settings.target_columns:
        others = [{**row, "label": [1.0, 2.0]} for row in rows_of(tried.test)]
        report, _ = tried.score("stored", test=CorpusSettings((write_jsonl(tried.folder / "others.jsonl", others),)))
        assert "a label has 2 numbers, and the run gives" in report.no_metrics


def test_figures_are_those_of_their_definitions():
    found = np.array([[1.0, 5], [2, 5], [2, 5], [4, 5], [9, 5]])
    wanted = np.array([[2.0, 1], [1, 2], [3, 3], [3, 4], [5, 5]])
    figures = Regression().figures(torch.from_numpy(found), torch.from_numpy(wanted))
    centred, other = found[:, 0] - found[:, 0].mean(), wanted[:, 0] - wanted[:, 0].mean()
    pearson = (centred * other).sum() / math.sqrt((centred**2).sum() * (other**2).sum())
    ranks = [np.array([1, 2.5, 2.5, 4, 5]), np.array([2, 1, 3.5, 3.5, 5])]
    spearman = np.corrcoef(*ranks)[0, 1]
    squares = ((found - wanted) ** 2).mean(axis=0)
    assert figures["pearson"] == pytest.approx(pearson / 2), "a constant has no correlation, which counts as 0"
    assert figures["spearman"] == pytest.approx(spearman / 2)
    assert figures["rmse"] == pytest.approx(np.sqrt(squares).mean())
    assert figures["loss"] == pytest.approx(squares.mean())


def test_figures_of_odd_data_warn_of_nothing():
    task = Regression()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one = task.figures(torch.tensor([[1.0]]), torch.tensor([[3.0]]))
        near = task.figures(torch.tensor([[1e6], [1e6 + 1], [1e6 + 3]]), torch.tensor([[1.0], [2.0], [4.0]]))
    assert (one["pearson"], one["rmse"]) == (0.0, 2.0)
    assert near["pearson"] == pytest.approx(1.0, abs=1e-4)


def test_the_loss_is_that_of_transformers():
    outputs, targets = torch.randn(5, 3), torch.randn(5, 3)
    total, weight = Regression().loss(Outputs(outputs), targets, None)
    assert float(total / weight) == pytest.approx(float(torch.nn.MSELoss()(outputs, targets)))


@pytest.mark.parametrize(
    ("value", "numbers"),
    [(3, (3.0,)), ("-1.5e2", (-150.0,)), (" 7 ", (7.0,)), ([1, 2.5], (1.0, 2.5)), (["1", "2"], (1.0, 2.0))],
)
def test_numbers_are_read(value, numbers):
    assert read_numbers({"label": value}, "label") == numbers


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("sport", "the text 'sport', expected a number"),
        ("3,5", "the text '3,5'"),
        ("1_000", "the text '1_000'"),
        ("nan", "holds nan, expected a finite"),
        ("-inf", "holds -inf, expected a finite"),
        (math.nan, "holds nan, expected a finite"),
        (1e300, r"holds 1e\+300, expected a finite"),
        (10**400, "a number of too many digits, expected a finite"),
        (True, "a truth value, expected a number"),
        ({"a": 1}, "an object, expected a number"),
        ([], "an empty list"),
        ([1.0, "x"], "the text 'x'"),
        ([[1.0]], "a list, expected a number"),
        ([None], "a NoneType, expected a number"),
        (None, "no number in column"),
        ("  ", "no number in column"),
    ],
)
def test_what_is_no_number_is_told(value, reason):
    with pytest.raises(BadRecord, match=reason):
        read_numbers({"label": value}, "label")


@pytest.fixture
def task(tmp_path, tiny_bert):
    """Regression on whatever a test writes."""

    def make(path, columns=()):
        data = CorpusSettings((str(path),))
        model = ModelSettings(str(tiny_bert), None, 24)
        return Tried("regression", RegressionSettings(columns), tmp_path, model, data, data)

    return make


def test_a_bad_target_is_one_line_with_file_and_record(task, tmp_path):
    path = write_csv(tmp_path / "classes.csv", records(20))
    with pytest.raises(DataError, match=r"classes\.csv, record 1: column 'label' holds the text '\w+', expected a num"):
        task(path).fit("run", cut="2")
    rows = numbered_texts(20)
    rows[6]["label"] = math.nan
    table = tmp_path / "table.parquet"
    pq.write_table(pa.Table.from_pylist(rows), table)
    with pytest.raises(DataError, match=r"table\.parquet, record 7: column 'label' holds nan, expected a finite"):
        task(table).fit("run", cut="2")


def test_counts_of_numbers_and_columns_must_fit(task, tmp_path):
    rows = [{**row, "label": [1.0] * (1 + (place == 5))} for place, row in enumerate(numbered_texts(20))]
    with pytest.raises(DataError, match=r"ragged\.jsonl, record 6: a label of 2 numbers, expected 1 as in the others"):
        task(write_jsonl(tmp_path / "ragged.jsonl", rows)).fit("run", cut="2")
    path = write_csv(tmp_path / "columns.csv", numbered_texts(20))
    with pytest.raises(DataError, match=r"no column 'width' \(--target-columns\)"):
        task(path, ("length", "width")).fit("run", cut="2")
    with pytest.raises(UsageError, match="--target-columns length,length: a column is named twice"):
        task(path, ("length", "length")).fit("run", cut="2")
    both = task(path, ("length",))
    with pytest.raises(DataError, match="--label-column label: --target-columns names the labels"):
        both.fit("run", cut="2", data=CorpusSettings((str(path),), label_column="label"))


def test_the_best_weights_are_those_of_the_smallest_error(task, tmp_path):
    path = write_csv(tmp_path / "data.csv", numbered_texts(40))
    report = task(path).fit("run", replace(SETTINGS, metric="rmse"), cut="2")
    errors = [line["evaluation"]["rmse"] for line in log_of(tmp_path / "run") if "evaluation" in line]
    assert report.metrics["rmse"] == min(errors)


def test_a_pretrained_number_goes_on_whatever_it_is_called(task, tmp_path, make_tiny):
    folder = make_tiny("scorer", tiny_config(num_labels=1))
    before = transformers.AutoModelForSequenceClassification.from_pretrained(folder).classifier.weight
    path = write_csv(tmp_path / "data.csv", numbered_texts(20))
    tried = Tried(
        "regression",
        RegressionSettings(),
        tmp_path,
        ModelSettings(str(folder), None, 24),
        *[CorpusSettings((str(path),))] * 2,
    )
    tried.fit("run", replace(SETTINGS, epochs=1, learning_rate=0.0), cut="2")
    after = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "run").classifier.weight
    assert torch.equal(before, after)
