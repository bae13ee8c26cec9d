"""A task with an output for each row, one with two samples an example, one over windows, and a third modality: each
made in a test module of the package's contracts alone, then trained from a store, resumed and predicted."""

import csv
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from recycle_cli.corpus import FORMS
from recycle_cli.errors import DataError, MissingError
from recycle_cli.models import MODALITIES
from recycle_cli.settings import (
    CorpusSettings,
    ModelSettings,
    SampleSettings,
    TrainingSettings,
    WindowSettings,
)
from recycle_cli.store import Store
from recycle_cli.tasks import KINDS
from recycle_cli.training.head import Head
from tests.records import TOPICS, records, write_csv
from tests.toys import CHAPTERS, MATCHING, NUMBERS, TABLE, TABLE_CLASSES, TAGGING, TableForm
from tests.trainings import Tried, learns_as_in_place, resumes_exactly, trained

SETTINGS = TrainingSettings(epochs=4, batch_size=8, learning_rate=1e-2)


@dataclass(frozen=True)
class Toy(Tried):
    """One of the four: its data on disk, and the commands with its names filled in.

    whole  corpora of all samples, as precompute takes them
    half   corpora of some of the samples that are predicted
    """

    whole: Sequence[CorpusSettings] = ()
    half: Sequence[CorpusSettings] = ()

    @property
    def partial(self) -> str:
        """The path of a store of `half`."""
        return str(self.folder / "partial")


def toy_of(name, folder, model, train, test, *, half, whole=None, settings=None, samples=SampleSettings()):  # noqa: B008
    """A toy with both of its stores filled. `half`: records of the test data, or corpora; `whole`: all data, unless
    corpora are given."""
    data, predicted = (CorpusSettings((str(path),)) for path in (train, test))
    toy = Toy(
        name,
        settings or KINDS[name].settings(),
        folder,
        model,
        data,
        predicted,
        {"samples": samples},
        SETTINGS,
        whole or (data, predicted),
        half if isinstance(half, list) else [replace(predicted, limit=half)],
    )
    toy.precompute(toy.store, toy.whole)
    toy.precompute(toy.partial, toy.half)
    return toy


@pytest.fixture(autouse=True, scope="module")
def registered():
    """The package knows the toys."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODALITIES, "table", TABLE)
        patch.setitem(FORMS, "table", TableForm())
        kinds = {"tagging": TAGGING, "matching": MATCHING, "table-classification": TABLE_CLASSES, "chapters": CHAPTERS}
        for name, kind in kinds.items():
            patch.setitem(KINDS, name, kind)
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Makes a folder for a toy."""
    return tmp_path_factory.mktemp


@pytest.fixture(scope="module")
def tagging(place, tiny_bert):
    """A tag for each word: whether it is a topic. The tokenizer takes a word as one piece."""
    folder = place("tagging")

    def write(name, rows):
        tags = [" ".join("T" if word in TOPICS.values() else "O" for word in row["text"].split()) for row in rows]
        kept = [{"text": row["text"], "label": own} for row, own in zip(rows, tags, strict=True)]
        return write_csv(folder / name, kept)

    train, test = write("train.csv", records(60)), write("test.csv", records(30, seed=1))
    return toy_of("tagging", folder, ModelSettings(str(tiny_bert), None, 24), train, test, half=11)


@pytest.fixture(scope="module")
def matching(place, tiny_bert):
    """Questions whose answers are their own words in another order, among others."""
    folder, draw = place("matching"), random.Random(0)

    def write(name, rows):
        pairs = []
        for row in rows:
            words = row["text"].split()
            draw.shuffle(words)
            pairs.append({"question": row["text"], "answer": " ".join([*words, "the"])})
        return write_csv(folder / name, pairs)

    train = write("train.csv", records(48, longest=6))
    test = write("test.csv", records(24, seed=1, longest=6))
    whole = [CorpusSettings((str(path),), text_column=one) for path in (train, test) for one in ("question", "answer")]
    half = [replace(one, limit=9) for one in whole[2:]]
    return toy_of("matching", folder, ModelSettings(str(tiny_bert), None, 24), train, test, whole=whole, half=half)


@pytest.fixture(scope="module")
def table(place):
    """Four numbers a record, whose signs give the class."""
    folder, draw = place("table"), np.random.default_rng(0)

    def write(name, count):
        rows = draw.normal(size=(count, len(NUMBERS))).round(3)
        label = ["up" if row[0] + row[1] > 0 else "down" for row in rows]
        named = [dict(zip(NUMBERS, map(str, row), strict=True)) for row in rows]
        return write_csv(folder / name, [{**row, "label": own} for row, own in zip(named, label, strict=True)])

    train, test = write("train.csv", 64), write("test.csv", 40)
    return toy_of("table-classification", folder, ModelSettings("toy-table"), train, test, half=15)


@pytest.fixture(scope="module")
def chapters(place, tiny_bert):
    """A class of texts of which some have more tokens than the model takes."""
    folder = place("chapters")

    def write(name, rows):
        return write_csv(folder / name, [{**row, "text": " ".join([row["text"]] * 5)} for row in rows])

    train, test = write("train.csv", records(48, longest=5)), write("test.csv", records(24, seed=1, longest=5))
    windows = WindowSettings(3)
    return toy_of(
        "chapters",
        folder,
        ModelSettings(str(tiny_bert), None, 16),
        train,
        test,
        half=11,
        settings=CHAPTERS.settings(windows=windows),
        samples=SampleSettings("chapters", windows),
    )


@pytest.fixture(params=["tagging", "matching", "table", "chapters"], scope="module")
def toy(request):
    return request.getfixturevalue(request.param)


def test_it_learns_from_a_store_as_with_the_trunk_in_the_loop(toy):
    """float32 rows are the trunk's outputs exactly, so that the losses differ by the rounding of padded batches."""
    stored, inplace = learns_as_in_place(toy, rtol=2e-3, atol=0)
    assert stored.metrics == pytest.approx(inplace.metrics, abs=0.02)
    assert stored.store_hit_share == 1.0
    found = toy.losses("stored")
    epoch = len(found) // SETTINGS.epochs
    assert np.mean(found[-epoch:]) < 0.9 * np.mean(found[:epoch]), "nothing was learnt"


def test_it_resumes_as_if_nothing_had_happened(toy):
    resumes_exactly(toy, saves=2)


def test_hits_misses_and_no_store_give_one_prediction(toy):
    report = trained(toy)
    plain, plain_rows = toy.score("stored")
    hits, hit_rows = toy.score("stored", toy.store)
    mixed, mixed_rows = toy.score("stored", toy.partial)
    assert (hits.misses, plain.hits) == (0, 0)
    assert 0 < mixed.hits < hits.hits
    assert plain.samples == len(Store.open(toy.store)) - stored_for_training(toy)
    assert len(plain_rows) == len(Path(toy.test.source[0]).read_text().splitlines()) - 1, "a row a record"
    for rows in (hit_rows, mixed_rows):
        same(rows, plain_rows)
    assert hits.metrics == pytest.approx(report.metrics, abs=1e-5)
    assert mixed.metrics == pytest.approx(plain.metrics, abs=1e-5)


def stored_for_training(toy):
    only = str(toy.folder / "only")
    toy.precompute(only, [one for one in toy.whole if one.source == toy.train.source])
    return len(Store.open(only))


def same(found, expected):
    """Rows of a prediction: names are equal, numbers nearly."""
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name, value in other.items():
            assert one[name] == (pytest.approx(value, abs=1e-4) if isinstance(value, float) else value)


def test_a_sample_that_the_store_lacks_is_told_computed_or_left_out(toy):
    """`compute` completes the store as precompute would; what is left out takes its whole example with it."""
    trained(toy)
    store = shutil.copytree(toy.partial, toy.folder / "completed")
    with pytest.raises(MissingError, match="lacks"):
        toy.fit("fail", store=str(store))
    once = replace(SETTINGS, on_missing="skip", epochs=1)
    skipped = toy.fit("skip", once, store=str(store), data=toy.test, evaluation=None)
    assert skipped.samples < toy.score("stored")[0].samples
    computed = toy.fit("computed", replace(SETTINGS, on_missing="compute"), store=str(store))
    assert toy.losses("computed") == pytest.approx(toy.losses("stored"), rel=1e-5)
    assert computed.store_hit_share < 1.0
    assert len(Store.open(str(store))) == len(Store.open(toy.store))


def test_each_row_of_a_prediction_has_its_own_tag(tagging):
    """The words of a text, and [CLS] and [SEP] at its ends."""
    trained(tagging)
    _, rows = tagging.score("stored", tagging.store)
    with Path(tagging.test.source[0]).open(newline="") as file:
        texts = [row["text"].split() for row in csv.DictReader(file)]
    assert [len(row["tags"]) for row in rows] == [2 + len(words) for words in texts]


def test_the_windows_of_a_text_are_one_prediction(chapters):
    trained(chapters)
    report, rows = chapters.score("stored", chapters.store)
    assert sum(row["windows"] for row in rows) == report.samples > len(rows) == 24


def test_a_missing_window_is_told_with_the_precompute_that_makes_it(chapters):
    with pytest.raises(MissingError, match=r"recycle precompute .* --task chapters --stride 3"):
        chapters.fit("run", store=chapters.partial)


def test_heads_read_pairs_from_one_batch(matching, monkeypatch):
    """A batch is whole pairs, each question before its answer."""
    seen = []
    forward = Head.forward
    monkeypatch.setattr(Head, "forward", lambda self, batch: seen.append(batch["lengths"]) or forward(self, batch))
    matching.fit("pairs", replace(SETTINGS, epochs=1), evaluation=None)
    for lengths in seen[:2]:
        assert all(answer == question + 1 for question, answer in list(pairwise(lengths.tolist()))[::2])


def test_an_example_whose_samples_the_store_has_in_part_is_of_no_use(matching):
    store = str(matching.folder / "questions")
    matching.precompute(store, [CorpusSettings(matching.test.source, text_column="question")])
    with pytest.raises(DataError, match="holds no example with all of its samples"):
        matching.fit("run", replace(SETTINGS, on_missing="skip"), store=store, data=matching.test, evaluation=None)
