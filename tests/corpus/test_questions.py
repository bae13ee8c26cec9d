"""Questions, contexts and answers: SQuAD's layout and tables, and one clear line for what cannot be used."""

import json

import pytest

from recycle_cli.corpus import QUESTION, Answer, read_answers
from recycle_cli.corpus.records import BadRecord
from recycle_cli.errors import DataError
from recycle_cli.settings import CorpusSettings, FileSettings, QuestionAnsweringSettings
from recycle_cli.tasks import QuestionAnswering, read_corpus
from tests.models.test_windows import inputs

CONTEXT = "The red cell grows fast. A red gene grows in a cell."
GENE = [Answer("red gene", 27)]
ROW = {"question": "which gene", "context": CONTEXT, "answers": [{"text": "red gene", "answer_start": 27}]}


def squad(*questions, version="1.1"):
    qas = [{"id": f"q{number}", **question} for number, question in enumerate(questions)]
    return {"version": version, "data": [{"title": "t", "paragraphs": [{"context": CONTEXT, "qas": qas}]}]}


def examples(folder, content, *, labelled=True, most=40, **columns):
    path = folder / ("data.json" if isinstance(content, dict) else "data.jsonl")
    rows = [content] if isinstance(content, dict) else content
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = QuestionAnswering(QuestionAnsweringSettings())
    return list(read_corpus(CorpusSettings((str(path),), **columns), task, lambda: inputs(most), labelled=labelled))


def refused(folder, content, **settings):
    with pytest.raises(DataError) as caught:
        examples(folder, content, **settings)
    said = str(caught.value)
    assert "\n" not in said
    return said


def test_squads_layout_is_a_record_a_question(tmp_path):
    (one, other) = examples(
        tmp_path,
        squad(
            {"question": "which gene", "answers": [{"text": "red gene", "answer_start": 27}]},
            {"question": "no gene", "answers": [], "is_impossible": True, "plausible_answers": [{"text": "red"}]},
        ),
    )
    assert (one.id, dict(one.sample.fields)) == ("q0", {"text": "which gene", "text_pair": CONTEXT})
    assert (list(one.label), other.label, one.starts) == (GENE, (), (0,))


def test_pretty_printed_files_and_several_at_once_are_read(tmp_path):
    content = squad({"question": "which gene", "answers": [{"text": "cell", "answer_start": 8}]})
    paths = [tmp_path / f"{number}.json" for number in range(2)]
    for path in paths:
        path.write_text("\ufeff" + json.dumps(content, indent=2))
    reader = QUESTION.reader([str(path) for path in paths], FileSettings())
    assert [(record.file, record.number, record.unit) for record in reader.records(())] == [
        (str(path), 1, "question") for path in paths
    ]


@pytest.mark.parametrize(
    "answers",
    [
        "red gene",
        ["red gene"],
        [{"text": "red gene"}],
        [{"text": "red gene", "answer_start": 27}],
        {"text": ["red gene"], "answer_start": [27]},
        {"text": "red gene", "answer_start": 27},
        '[{"text": "red gene", "answer_start": 27}]',
    ],
)
def test_the_forms_of_answers_in_tables(tmp_path, answers):
    (example,) = examples(tmp_path, [{**ROW, "answers": answers}])
    assert list(example.label) == GENE


@pytest.mark.parametrize("answers", [[], "[]", {"text": [], "answer_start": []}])
def test_a_question_without_an_answer(answers):
    assert read_answers({"answers": answers}, "answers") == ()


def test_the_first_place_is_taken_for_an_answer_without_one(tmp_path):
    (example,) = examples(tmp_path, [{**ROW, "answers": ["cell"]}])
    assert list(example.label) == [Answer("cell", 8)]


def test_columns_of_other_names(tmp_path):
    rows = [{"ask": "which gene", "about": CONTEXT, "says": "red gene"}]
    named = {"text_column": "ask", "text_pair_column": "about", "label_column": "says"}
    assert list(examples(tmp_path, rows, **named)[0].label) == GENE
    said = refused(tmp_path, rows)
    assert "which column holds the answers? Name it with --label-column; the columns are: ask, about, says" in said
    said = refused(tmp_path, rows, label_column="says")
    assert "which column is the question? Name it with --text-column" in said
    said = refused(tmp_path, rows, label_column="says", text_column="ask")
    assert "which column is the context? Name it with --text-pair-column" in said


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        (["blue gene"], "the context does not contain the answer 'blue gene'"),
        ([{"text": "red gene", "answer_start": 26}], "does not begin at answer_start 26, where the context has"),
        ([{"text": "red gene", "answer_start": -3}], "does not begin at answer_start -3"),
        ([{"text": "red gene", "answer_start": 2000}], "does not begin at answer_start 2000"),
        ([{"text": "red gene", "answer_start": "27"}], "holds answer_start '27', expected a whole number"),
        ([{"text": ""}], "holds an answer without text"),
        ([7], "holds an integer among the answers"),
        ({"text": ["red"], "answer_start": [4, 5]}, "of equal length"),
        (None, "no answers in column 'answers'; a question without an answer is written []"),
    ],
)
def test_answers_that_cannot_be_used_are_told_with_file_and_record(tmp_path, answers, said):
    found = refused(tmp_path, [ROW, {**ROW, "answers": answers}])
    assert f"{tmp_path}/data.jsonl, record 2: " in found
    assert said in found


def test_a_wrong_answer_is_no_hindrance_to_reading_the_samples(tmp_path):
    (example,) = examples(tmp_path, [{**ROW, "answers": ["blue gene"]}], labelled=False)
    assert example.label is None


def test_a_question_that_leaves_no_room_is_told(tmp_path):
    rows = [ROW, {**ROW, "question": "which gene " * 9, "context": CONTEXT * 4, "answers": "red gene"}]
    found = refused(tmp_path, rows, most=24)
    assert f"{tmp_path}/data.jsonl, record 2: the first text and the special tokens take" in found
    assert "--stride" in found


def test_tables_with_a_column_data_are_no_squad(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text("".join(json.dumps({**ROW, "data": [number]}) + "\n" for number in range(2)))
    assert [record.unit for record in QUESTION.reader([str(path)], FileSettings()).records(())] == ["record"] * 2


def test_layouts_that_are_not_squads(tmp_path):
    content = squad({"question": "which gene", "answers": []})
    del content["data"][0]["paragraphs"][0]["qas"]
    assert "data.json: no list 'qas' where SQuAD's layout has one" in refused(tmp_path, content)
    both = squad({"question": "a", "answers": [{"text": "red", "answer_start": 4}], "is_impossible": True})
    assert "data.json, question 1: it has is_impossible true and answers as well" in refused(tmp_path, both)
    some = squad({"question": "which gene", "answers": []}, {"question": "which gene"})
    assert "data.json, question 2: no answers in column 'answers'" in refused(tmp_path, some)


def test_an_answers_other_errors_are_bad_records():
    with pytest.raises(BadRecord, match="without the lists"):
        read_answers({"answers": {"texts": []}}, "answers")
