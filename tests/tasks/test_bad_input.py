"""Bad input of every task: one clear line, with the file and the number of the line or record."""

import json
import re
from dataclasses import dataclass, field

import pytest

from recycle_cli.errors import DataError
from recycle_cli.settings import (
    ClassificationSettings,
    CorpusSettings,
    ModelSettings,
    PairSettings,
    QuestionAnsweringSettings,
    RegressionSettings,
    TaskSettings,
    TokenSettings,
    TrainingSettings,
)
from recycle_cli.verbs.finetune import Job, finetune
from tests.records import records

CONTEXT = "the red gene shows a good cell"
QUESTION = {"question": "which gene", "context": CONTEXT, "answers": ["red gene"]}
TAGS = TokenSettings()
CONLL = "the\tX\tO\nred\tX\tB-COL\n\ncell\tX\tB-BIO\n"
SCORED = {"question": "a cell", "answer": "red", "score": 0.5}


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


@dataclass(frozen=True)
class Bad:
    """Data that a task refuses.

    number   the first bad line or record
    said     what is wrong
    good     data to train on, if the bad ones are those of --eval
    options  of the corpus
    """

    task: str
    settings: TaskSettings
    name: str
    content: str
    number: str
    said: str
    good: str = ""
    options: dict = field(default_factory=dict)


TOKENS, NUMBERS, PAIRS, ANSWERS, CLASSES = (
    "token-classification",
    "regression",
    "pair-similarity",
    "question-answering",
    "text-classification",
)

CASES = {
    "fewer tags than words": Bad(
        *(TOKENS, TAGS, "a.jsonl"),
        lines({"tokens": ["a", "cell"], "tags": ["O", "O"]}, {"tokens": ["a", "gene"], "tags": ["O"]}),
        "record 2",
        "2 words in column 'tokens', and 1 tags in column 'tags'",
    ),
    "more tags than words, as texts": Bad(
        *(TOKENS, TAGS, "a.jsonl"), lines({"tokens": "a cell", "tags": "O O O"}), "record 1", "2 words .* 3 tags"
    ),
    "a line of CoNLL without its tag": Bad(
        *(TOKENS, TAGS, "a.conll"), f"{CONLL}gene\tX\n", "line 5", r"2 columns \('gene X'\), expected 3"
    ),
    "an unseen tag": Bad(
        *(TOKENS, TAGS, "a.conll"),
        "the\tX\tO\n\nred\tX\tB-NEW\n",
        "line 3",
        "the tag 'B-NEW' of word 1 was not seen in training",
        CONLL,
    ),
    "fewer columns than asked for": Bad(
        *(TOKENS, TAGS, "a.conll"),
        CONLL,
        "",
        r"no column '4' \(--label-column\); the columns are: 1, 2, 3",
        options={"label_column": "4"},
    ),
    "an answer that its context does not contain": Bad(
        *(ANSWERS, QuestionAnsweringSettings(), "a.jsonl"),
        lines(QUESTION, {**QUESTION, "answers": ["blue gene"]}),
        "record 2",
        "the context does not contain the answer 'blue gene'",
    ),
    "an answer elsewhere than it says": Bad(
        *(ANSWERS, QuestionAnsweringSettings(), "a.jsonl"),
        lines(QUESTION, {**QUESTION, "answers": [{"text": "red gene", "answer_start": 5}]}),
        "record 2",
        "does not begin at answer_start 5",
    ),
    "a context that cannot be windowed": Bad(
        *(ANSWERS, QuestionAnsweringSettings(), "a.jsonl"),
        lines(QUESTION, {**QUESTION, "question": "which gene " * 9, "context": CONTEXT * 4}),
        "record 2",
        "the first text and the special tokens take",
    ),
    "a pair with an empty side": Bad(
        *(PAIRS, PairSettings(), "a.jsonl"),
        lines(SCORED, {**SCORED, "answer": " "}),
        "record 2",
        "the text in column 'answer' is empty",
    ),
    "a pair without a side": Bad(
        *(PAIRS, PairSettings(), "a.jsonl"), lines(SCORED, {"question": "a"}), "record 2", "no text in column 'answer'"
    ),
    "a cross-encoder's pair without a side": Bad(
        *(CLASSES, ClassificationSettings(), "a.jsonl"),
        lines({"text": "a", "other": "b", "label": "x"}, {"text": "a", "label": "y"}),
        "record 2",
        "no text in column 'other'",
        options={"text_pair_column": "other"},
    ),
    "a score that is text": Bad(
        *(PAIRS, PairSettings("cosent"), "a.jsonl"),
        lines(SCORED, {**SCORED, "score": "alike"}),
        "record 2",
        "column 'score' holds the text 'alike', expected a number",
    ),
    "a target that is text": Bad(
        *(NUMBERS, RegressionSettings(), "a.jsonl"),
        lines({"text": "a cell", "label": 1.5}, {"text": "a gene", "label": "good"}),
        "record 2",
        "column 'label' holds the text 'good', expected a number",
    ),
    "a target that is NaN": Bad(
        *(NUMBERS, RegressionSettings(), "a.csv"),
        "text,label\na cell,1.5\na gene,nan\n",
        "record 2",
        "expected a finite",
    ),
    "targets of other counts": Bad(
        *(NUMBERS, RegressionSettings(), "a.jsonl"),
        lines({"text": "a cell", "label": [1, 2]}, {"text": "a gene", "label": [1]}),
        "record 2",
        "a label of 1 numbers, expected 2 as in the others",
    ),
    "classes where numbers were meant": Bad(
        *(NUMBERS, RegressionSettings(), "a.csv"), "text,label\na cell,sport\n", "record 1", "holds the text 'sport'"
    ),
    "an unseen class": Bad(
        *(CLASSES, ClassificationSettings(), "a.csv"),
        "text,label\na cell,sport\n",
        "record 1",
        "the label 'sport' was not seen in training",
        "text,label\na cell,x\na gene,y\n",
    ),
}


def refusal(bad, folder, model):
    path = folder / bad.name
    path.write_text(bad.content, encoding="utf-8")
    corpus = CorpusSettings((str(path),), **bad.options)
    train, evaluation = corpus, None
    if bad.good:
        (folder / f"good-{bad.name}").write_text(bad.good, encoding="utf-8")
        train, evaluation = CorpusSettings((str(folder / f"good-{bad.name}"),)), corpus
    job = Job(train, str(folder / "run"), None, evaluation, bad.task, "2", model_named=True, tensorboard=False)
    with pytest.raises(DataError) as caught:
        finetune(job, ModelSettings(str(model), None, 16), TrainingSettings(task=bad.settings))
    return str(path), str(caught.value)


@pytest.mark.parametrize("name", CASES)
def test_it_is_one_line_with_file_and_number(tmp_path, tiny_bert, name):
    bad = CASES[name]
    path, message = refusal(bad, tmp_path, tiny_bert)
    assert "\n" not in message
    assert message.startswith(f"{path}, {bad.number}: " if bad.number else f"{path}: ")
    assert re.search(bad.said, message)
    assert not (tmp_path / "run").exists()


def test_numbers_where_classes_were_meant_are_told(tmp_path, tiny_bert):
    content = "text,label\n" + "".join(f"{row['text']},{at / 7:.3f}\n" for at, row in enumerate(records(40)))
    bad = Bad(CLASSES, ClassificationSettings(), "a.csv", content, "", "")
    _, message = refusal(bad, tmp_path, tiny_bert)
    assert "40 different numbers" in message
    assert "--task regression learns numbers" in message
