"""The sample data are what their README says."""

from collections import Counter
from pathlib import Path

import pytest

from recycle_cli.corpus import Corpus, Example, placed
from recycle_cli.keys import Sample, keys_of
from recycle_cli.settings import CorpusSettings
from recycle_cli.tasks import PairSimilarity, QuestionAnswering
from tests.corpora import open_corpus

FOLDER = Path(__file__).parents[1] / "sample_data"
LABELS = ["account", "delivery", "order", "payment", "product", "returns"]
RECORDS = {"train": 413, "test": 120}


def examples(name: str) -> list[Example]:
    return list(open_corpus(str(FOLDER / name), labelled=True))


def read(name: str) -> list[Sample]:
    return [sample for example in examples(name) for sample in example.samples]


@pytest.mark.parametrize("split", RECORDS)
def test_csv_and_json_lines_hold_the_same_records(split):
    samples = examples(f"{split}.csv")
    assert samples == examples(f"{split}.jsonl")
    assert len(samples) == RECORDS[split]


@pytest.mark.parametrize(("split", "count"), [("train", 33), ("test", 10)])
def test_the_questions_have_their_answers(split, count):
    task = QuestionAnswering()
    settings = CorpusSettings((str(FOLDER / f"questions-{split}.json"),))
    found = list(Corpus(settings, form=task.form, read_label=task.read_label, labelled=True))
    assert len({example.id for example in found}) == len(found) == count
    for example in found:
        assert example.label == placed(example.label, str(example.sample.fields["text_pair"]))


@pytest.mark.parametrize(("split", "count"), [("train", 40), ("test", 16)])
def test_the_pairs_are_two_texts_each(split, count):
    settings = CorpusSettings((str(FOLDER / f"pairs-{split}.csv"),))
    found = list(Corpus(settings, form=PairSimilarity().form))
    assert len(found) == count
    assert all(len(example.samples) == 2 for example in found)


def test_no_record_is_there_twice():
    samples = read("train.csv") + read("test.csv")
    keys, _ = keys_of(samples)
    folded = {" ".join(str(sample.fields["text"]).casefold().split()) for sample in samples}
    ids = {sample.id for sample in samples}
    assert len({key.tobytes() for key in keys}) == len(folded) == len(ids) == len(samples)


def test_the_labels_are_even():
    train, test = (Counter(example.label for example in examples(f"{split}.csv")) for split in RECORDS)
    assert sorted(train) == sorted(test) == LABELS
    assert min(train.values()) >= 65
    assert set(test.values()) == {20}


def test_the_texts_are_awkward_enough_to_find_bugs():
    texts = [str(sample.fields["text"]) for sample in read("train.csv")]
    for awkward in ('"', ",", "\n", "é", "£", "😂"):
        assert any(awkward in text for text in texts), awkward
    lengths = [len(text.split()) for text in texts]
    assert min(lengths) == 1
    assert max(lengths) > 100
