"""Question answering: scored as SQuAD is, decoded as transformers decodes, learnt from a store as in place, over
windows, and saved as an ordinary checkpoint."""

import json
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from torchmetrics.functional.text import squad as published

from recycle_cli.cli.main import app
from recycle_cli.errors import DataError
from recycle_cli.models.outputs import Outputs
from recycle_cli.settings import (
    CorpusSettings,
    ModelSettings,
    QuestionAnsweringSettings,
    SampleSettings,
    WindowSettings,
)
from recycle_cli.store import Store
from recycle_cli.tasks import QuestionAnswering
from recycle_cli.tasks.answer_spans import best_span, best_window
from recycle_cli.tasks.squad_metrics import exact_match, f1
from tests.conftest import WORDS
from tests.tasks.corpora import write_jsonl
from tests.trainings import Tried, learns_as_in_place, resumes_exactly, trained

MOST, STRIDE = 24, 5


def questions(count, seed=0, unanswered=0.0):
    """Contexts of up to three windows; the answer is the word behind `gene`, and some contexts have none."""
    draw = random.Random(seed)
    plain = [word for word in WORDS if word not in ("gene", ".", ",")]
    rows = []
    for number in range(count):
        words = draw.choices(plain, k=draw.randint(6, 40))
        if draw.random() < unanswered:
            rows.append({"id": f"q{number}", "question": "which gene", "context": " ".join(words), "answers": []})
            continue
        place = draw.randrange(len(words) - 1)
        words.insert(place, "gene")
        start = len(" ".join(words[: place + 1])) + 1
        answers = [{"text": words[place + 1], "answer_start": start}]
        rows.append({"id": f"q{number}", "question": "which gene", "context": " ".join(words), "answers": answers})
    return rows


def make(folder, tiny, settings=QuestionAnsweringSettings(WindowSettings(STRIDE)), unanswered=0.0):  # noqa: B008
    rows = {"train": questions(32, 0, unanswered), "test": questions(12, 1, unanswered)}
    train, test = (CorpusSettings((write_jsonl(folder / f"{name}.jsonl", own),)) for name, own in rows.items())
    samples = {"samples": SampleSettings("question-answering", settings.windows)}
    return Tried("question-answering", settings, folder, ModelSettings(str(tiny), None, MOST), train, test, samples)


@pytest.fixture
def tried(tmp_path, tiny_bert):
    return make(tmp_path, tiny_bert)


@pytest.fixture(scope="module")
def filled(tmp_path_factory, tiny_bert):
    """The same with its store, for all tests that change neither."""
    tried = make(tmp_path_factory.mktemp("questions"), tiny_bert)
    tried.fill()
    return tried


# Metrics

ODD = [
    ("the red cell", ["red cell"]),
    ("red", ["red cell", "red"]),
    ("red cell red", ["red cell"]),
    ("a cell, red!", ["Red Cell"]),
    ("blue", ["red cell"]),
    ("", ["red cell"]),
    ("cell cell", ["cell"]),
    ("fünf-hundert", ["fünf hundert"]),
]


@pytest.mark.parametrize(("found", "answers"), ODD)
def test_exact_match_and_f1_are_the_published(found, answers):
    wanted = {"answers": {"text": answers, "answer_start": [0] * len(answers)}, "id": "0"}
    scores = published([{"prediction_text": found, "id": "0"}], [wanted])
    assert 100 * exact_match(found, answers) == pytest.approx(float(scores["exact_match"]))
    assert 100 * f1(found, answers) == pytest.approx(float(scores["f1"]))


@pytest.mark.parametrize(
    ("found", "answers", "exact", "score"),
    [
        ("", [], 1.0, 1.0),
        ("the", [], 1.0, 1.0),
        ("red", [], 0.0, 0.0),
        ("", ["the"], 1.0, 1.0),
        ("red cell", ["the", "cell"], 0.0, 2 / 3),
        ("one two three", ["two three four five"], 0.0, 2 * 2 / 7),
    ],
)
def test_exact_match_and_f1_of_empty_answers_by_hand(found, answers, exact, score):
    """As in SQuAD 2.0's evaluation: answers of which nothing is left do not count, and none is the empty answer."""
    assert exact_match(found, answers) == exact
    assert f1(found, answers) == pytest.approx(score)


# Decoding


def by_transformers(logits, inside, most):
    """`select_starts_ends` and `decode_spans` of transformers 4's question-answering pipeline, for one window."""
    masked = np.where((inside | (np.arange(len(inside)) == 0))[:, None], logits, -10000.0)
    shares = np.exp(masked - masked.max(axis=0))
    shares = shares / shares.sum(axis=0)
    none = shares[0, 0] * shares[0, 1]
    shares[0] = 0.0
    outer = np.tril(np.triu(np.outer(shares[:, 0], shares[:, 1])), most - 1)
    first, last = np.unravel_index(outer.argmax(), outer.shape)
    return first, last, outer[first, last], none


def test_the_best_place_is_that_of_transformers():
    draw = np.random.default_rng(0)
    for _ in range(200):
        asked, rows, most = draw.integers(1, 6), draw.integers(1, 30), int(draw.integers(1, 12))
        logits = draw.normal(size=(asked + rows + 3, 2), scale=3).astype(np.float32)
        spans = np.zeros((len(logits), 3), dtype=np.int64)
        spans[:, 0] = [-1, *[0] * asked, -1, *[1] * rows, -1]
        inside = spans[:, 0] == 1
        spans[inside, 1] = 5 * np.arange(rows)
        spans[inside, 2] = spans[inside, 1] + 4
        first, last, score, none = by_transformers(logits.astype(np.float64), inside, most)
        found = best_span(logits, spans, most)
        assert (found.first, found.last) == (spans[first, 1], spans[last, 2])
        assert (found.score, found.none) == (pytest.approx(score), pytest.approx(none))


def test_the_best_of_several_windows_and_the_least_probable_none():
    spans = np.array([[-1, 0, 0], [0, 0, 5], [-1, 0, 0], [1, 0, 4], [1, 5, 9], [-1, 0, 0]])
    sure, unsure = (np.zeros((6, 2), dtype=np.float32) for _ in range(2))
    sure[4], unsure[0] = 9.0, 9.0
    chosen = best_window([best_span(unsure, spans, 3), best_span(sure, spans, 3)])
    assert (chosen.window, chosen.found.first, chosen.found.last) == (1, 5, 9)
    assert chosen.none == best_span(sure, spans, 3).none < 0.01


def test_the_loss_is_that_of_transformers(tiny_bert):
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(tiny_bert).eval()
    ids = torch.randint(5, 20, (4, 9))
    mask = torch.tensor([[1] * 9, [1] * 9, [1] * 5 + [0] * 4, [1] * 7 + [0] * 2])
    targets = torch.tensor([[1, 3], [0, 0], [4, 4], [2, 6]])
    with torch.no_grad():
        found = model(input_ids=ids, attention_mask=mask)
    values = torch.stack([found.start_logits, found.end_logits], dim=-1)
    blocked = values.masked_fill(~mask.bool()[..., None], -torch.inf)
    each = [torch.nn.functional.cross_entropy(blocked[..., side], targets[:, side]) for side in (0, 1)]
    total, weight = QuestionAnswering().loss(Outputs(values, mask.sum(1)), targets, None)
    assert float(total / weight) == pytest.approx(float(sum(each) / 2), rel=1e-6)
    assert int(weight) == 4


# From a store


def test_it_learns_from_a_store_as_in_place(filled):
    stored, inplace = learns_as_in_place(filled, rtol=0)
    assert stored.metrics == pytest.approx(inplace.metrics)
    assert stored.samples > 32, "some contexts have several windows"
    assert set(stored.metrics) == {"f1", "exact_match"}


def test_it_resumes_exactly(filled):
    resumes_exactly(filled)


def test_hits_misses_and_write_back_give_the_answers_of_the_saved_model(filled):
    """Those of transformers' own class over the windows, each decoded as transformers does."""
    report = trained(filled)
    hits, rows = filled.score("stored", filled.store)
    assert hits.misses == 0
    assert hits.samples > len(rows) == 12
    assert hits.metrics == pytest.approx(report.metrics)
    partial = str(filled.folder / "partial")
    filled.fill(partial, limit=3)
    before = len(Store.open(partial))
    mixed, others = filled.score("stored", partial, write_back=True)
    assert mixed.misses
    assert len(Store.open(partial)) > before
    assert len(Store.open(partial).origins) == 1, "written back as precompute makes them of records"
    for one, other in zip(rows, others, strict=True):
        assert one["answer"] == other["answer"]
        assert one["score"] == pytest.approx(other["score"], rel=1e-3)
    contexts = {row["id"]: row["context"] for row in questions(12, 1)}
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(filled.folder / "stored").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(filled.folder / "stored")
    for row in rows:
        context = contexts[row["id"]]
        assert context[row["start"] : row["end"]] == row["answer"]
        if len(tokenizer("which gene", context)["input_ids"]) > MOST:
            continue
        encoded = tokenizer("which gene", context, return_tensors="pt", return_offsets_mapping=True)
        offsets = encoded.pop("offset_mapping")[0].numpy()
        with torch.no_grad():
            found = model(**encoded)
        logits = torch.stack([found.start_logits[0], found.end_logits[0]], dim=-1).double().numpy()
        inside = np.array([field == 1 for field in encoded.sequence_ids(0)])
        first, last, score, _ = by_transformers(logits, inside, 30)
        assert (row["start"], row["end"]) == (offsets[first, 0], offsets[last, 1])
        assert row["score"] == pytest.approx(float(score), rel=1e-3)


def test_questions_without_an_answer_are_learnt_if_asked_for(tmp_path, tiny_bert):
    plain = make(tmp_path, tiny_bert, unanswered=0.4)
    plain.fill()
    with pytest.raises(DataError, match=r"some questions have no answer .* add --no-answer"):
        plain.fit("plain")
    asked = QuestionAnsweringSettings(WindowSettings(STRIDE), no_answer=True, no_answer_threshold=-1.0)
    tried = make(tmp_path, tiny_bert, asked, unanswered=0.4)
    report = tried.fit("run")
    found, rows = tried.score("run", tried.store)
    assert found.metrics == pytest.approx(report.metrics)
    assert {(row["answer"], row["start"], row["end"]) for row in rows} == {("", 0, 0)}, "none is sure enough"
    assert all(0 < row["score"] == row["no_answer_score"] < 1 for row in rows)
    unanswered = sum(exact_match("", [one["text"] for one in row["answers"]]) for row in questions(12, 1, 0.4))
    assert found.metrics["exact_match"] == pytest.approx(unanswered / 12)
    never = replace(asked, no_answer_threshold=1.0)
    replace(tried, settings=never).fit("never")
    _, rows = tried.score("never", tried.store)
    assert all(row["answer"] for row in rows)


def test_predictions_in_squads_own_format(filled):
    """One object of answers by ids."""
    trained(filled)
    _, rows = filled.score("stored", filled.store)
    path = filled.folder / "answers.json"
    app(
        ["predict", str(filled.test.source[0]), str(filled.folder / "stored"), "--output", str(path)],
        standalone_mode=False,
    )
    assert json.loads(path.read_text()) == {row["id"]: row["answer"] for row in rows}
