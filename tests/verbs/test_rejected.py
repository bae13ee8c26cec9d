"""Samples that turn out unusable while a prediction runs: their examples are left out, the others come in order."""

import csv
import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from recycle_cli.errors import DataError
from recycle_cli.models.text.tokens import TextInputs
from recycle_cli.settings import (
    CorpusSettings,
    ImageSettings,
    ModelSettings,
    PrecomputeSettings,
    PredictSettings,
    TrainingSettings,
)
from recycle_cli.tasks import KINDS
from recycle_cli.verbs.finetune import Job, finetune
from recycle_cli.verbs.precompute import precompute
from recycle_cli.verbs.predict import predict
from tests.records import records, write_csv
from tests.toys import MATCHING

SHAPES = Path(__file__).parents[2] / "sample_data" / "shapes"
SMALL = ModelSettings("shufflenet_v2_x0_5", device="cpu", images=ImageSettings("none", resize=(32,), crop=(32,)))
WINDOWS = PredictSettings(window=4)
"""The first windows are of one sample, of two, and then of four."""

LOST = {"first": range(3), "middle": range(7, 11), "last": range(15, 18), "two": range(3, 11), "some": (0, 4, 5, 17)}
"""Which of 18 samples cannot be used: whole windows of them, or samples here and there."""


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Images, a RUN trained on them, and a store of the first twelve."""
    folder = tmp_path_factory.mktemp("images")
    for name in ("circle", "square", "triangle"):
        (folder / "data" / name).mkdir(parents=True)
        for number in range(6):
            shutil.copy(SHAPES / "val" / name / f"{number:02d}.png", folder / "data" / name)
    data = CorpusSettings((str(folder / "data"),))
    usual = {"task": "image-classification", "model_named": True, "tensorboard": False}
    finetune(Job(data, str(folder / "run"), cut="stage3", **usual), SMALL, TrainingSettings(epochs=1))
    precompute(replace(data, limit=12), str(folder / "store"), SMALL, PrecomputeSettings(("stage3",), "float32"))
    return folder


def predicted(images, data, output, store=None):
    """The report and the records of a prediction that passes over images that cannot be used."""
    corpus = CorpusSettings((str(data),), on_error="skip")
    report = predict(corpus, str(images / "run"), store, str(output), ModelSettings(device="cpu"), WINDOWS)
    with output.open(newline="") as file:
        return report, list(csv.DictReader(file))


def truncate(images, lost, folder):
    """A copy of the images of which these are cut short."""
    shutil.copytree(images / "data", folder)
    paths = sorted(folder.rglob("*.png"))
    for number in lost:
        paths[number].write_bytes(paths[number].read_bytes()[:60])
    return folder


@pytest.fixture(scope="module")
def whole(images):
    """The records of all images, none of them lost."""
    return predicted(images, images / "data", images / "whole.csv")[1]


@pytest.mark.parametrize(("lost", "stored"), [*((lost, True) for lost in LOST), ("first", False), ("some", False)])
def test_windows_of_images_that_cannot_be_decoded_are_passed_over(images, whole, tmp_path, lost, stored):
    data, store = truncate(images, LOST[lost], tmp_path / "data"), str(images / "store") if stored else None
    report, rows = predicted(images, data, tmp_path / "out.csv", store)
    left = [row for number, row in enumerate(whole) if number not in LOST[lost]]
    assert (report.samples, report.failed_samples) == (len(left), len(LOST[lost]))
    assert [row["id"] for row in rows] == [row["id"] for row in left]
    assert [float(row["score"]) for row in rows] == pytest.approx([float(row["score"]) for row in left], abs=1e-5)
    listed = [json.loads(line)["id"] for line in (tmp_path / "out.csv.failures.jsonl").read_text().splitlines()]
    assert listed == [whole[number]["id"] for number in LOST[lost]]


def test_images_that_can_none_of_them_be_decoded_give_no_record(images, tmp_path):
    report, rows = predicted(images, truncate(images, range(18), tmp_path / "data"), tmp_path / "none.csv")
    assert (report.samples, report.failed_samples, report.metrics, rows) == (0, 18, None, [])


# Examples of several samples


@pytest.fixture(scope="module")
def match(tmp_path_factory, tiny_bert):
    """Predict 18 questions with their answers, by a RUN of the toy task; gives the report and the records."""
    folder, draw = tmp_path_factory.mktemp("pairs"), random.Random(0)
    rows = []
    for row in records(18, longest=6):
        words = row["text"].split()
        rows.append({"question": row["text"], "answer": " ".join([*draw.sample(words, len(words)), "the"])})
    data = CorpusSettings((str(write_csv(folder / "pairs.csv", rows)),), on_error="skip")
    job = Job(data, str(folder / "run"), cut="2", task="matching", model_named=True, tensorboard=False)

    def match(settings):
        report = predict(data, job.output, None, str(folder / "out.jsonl"), ModelSettings(), settings)
        return report, [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(KINDS, "matching", MATCHING)
        finetune(job, ModelSettings(str(tiny_bert), None, 24), TrainingSettings(epochs=1, batch_size=8))
        yield match


@pytest.fixture(scope="module")
def whole_pairs(match):
    """The records of all pairs, none of them lost."""
    return match(WINDOWS)[1]


@pytest.mark.parametrize(
    "lost",
    [
        ("0.0",),
        ("0.1",),
        ("3.0", "3.1"),
        ("17.1",),
        ("1.1", "2.0", "9.0"),
        [f"{number}.{part}" for number in range(1, 8) for part in (0, 1)],
    ],
)
@pytest.mark.parametrize("window", [3, 64])
def test_an_example_goes_with_any_of_its_samples(match, whole_pairs, monkeypatch, lost, window):
    """Windows of one and of three samples end in the midst of a pair, those of 64 do not."""
    prepare = TextInputs.prepare

    def refusing(preprocessor, samples):
        if unusable := [sample.id for sample in samples if sample.id in lost]:
            raise DataError(f"record {unusable[0]} cannot be used")
        return prepare(preprocessor, samples)

    monkeypatch.setattr(TextInputs, "prepare", refusing)
    report, rows = match(replace(WINDOWS, window=window))
    gone = {identity.partition(".")[0] for identity in lost}
    left = [row for row in whole_pairs if row["id"] not in gone]
    assert [row["id"] for row in rows] == [row["id"] for row in left]
    assert [row["similarity"] for row in rows] == pytest.approx([row["similarity"] for row in left], abs=1e-5)
    assert report.failed_samples == len(lost)
