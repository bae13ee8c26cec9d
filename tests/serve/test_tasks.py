"""Whatever a task's `predict` takes, the server takes: the answers are the same lines, hits and misses."""

import base64
import json
import random
import struct
import zlib

import pytest

from recycle_cli.settings import (
    ClassificationSettings,
    CorpusSettings,
    ImageSettings,
    LimitSettings,
    ModelSettings,
    PairSettings,
    PredictSettings,
    QuestionAnsweringSettings,
    RegressionSettings,
    SampleSettings,
    ServeSettings,
    TokenSettings,
    TrainingSettings,
    WindowSettings,
)
from recycle_cli.verbs.finetune import Job, finetune
from recycle_cli.verbs.predict import predict
from tests.serve.servers import serving
from tests.tasks.corpora import SHAPES, several, write_jsonl
from tests.tasks.corpora import shapes as images_of
from tests.tasks.regressions import numbered_texts
from tests.tasks.tagged import tagged
from tests.tasks.test_pair_similarity import pairs
from tests.tasks.test_question_answering import questions
from tests.trainings import Tried

WINDOWS = WindowSettings(5)

TASKS = {
    "question-answering": (QuestionAnsweringSettings(WINDOWS), questions, ("answers",), SampleSettings),
    "token-classification": (TokenSettings(WINDOWS), tagged, ("tags",), SampleSettings),
    "pair-similarity": (PairSettings(), pairs, (), SampleSettings),
    "regression": (RegressionSettings(), numbered_texts, ("label",), None),
    "text-classification": (ClassificationSettings(multi_label=True), several, ("labels",), None),
}


LONG = ("token-classification", "pair-similarity", "regression", "text-classification")


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.long if name in LONG else ()) for name in TASKS])
def test_the_answers_are_the_lines_of_predict(name, tiny_bert, tmp_path):
    settings, make, labels, samples = TASKS[name]
    rows = {"train": make(24, 0), "test": make(8, 1)}
    train, test = (CorpusSettings((write_jsonl(tmp_path / f"{part}.jsonl", own),)) for part, own in rows.items())
    windows = settings.windows if hasattr(settings, "windows") else WindowSettings()
    more = {"samples": SampleSettings(name, windows)} if samples else {}
    tried = Tried(name, settings, tmp_path, ModelSettings(str(tiny_bert), None, 24), train, test, more)
    tried.fill(limit=16)
    tried.fill()
    tried.fit("run", TrainingSettings(epochs=1, batch_size=10))
    for store in (tried.store, None):
        _, expected = tried.score("run", store)
        inputs = [{key: value for key, value in row.items() if key not in labels} for row in rows["test"]]
        with serving([tmp_path / "run"], [store] if store else []) as server:
            answer = server.post("/runs/run", {"inputs": inputs})
        assert answer.status_code == 200, answer.text
        if store:
            assert answer.json()["answers"] == expected
            lines = [json.dumps(line, ensure_ascii=False) for line in expected]
            assert answer.text.startswith(f'{{"run": "run", "answers": [{", ".join(lines)}]')
        for found, line in zip(answer.json()["answers"], expected, strict=True):
            assert set(found) == set(line)


def test_inputs_may_be_plain_and_pairs_are_lists(tiny_bert, tmp_path):
    train = CorpusSettings((write_jsonl(tmp_path / "train.jsonl", pairs(24)),))
    tried = Tried("pair-similarity", PairSettings(), tmp_path, ModelSettings(str(tiny_bert), None, 24), train, train)
    tried.fit("run", TrainingSettings(epochs=1, batch_size=10), cut="2")
    with serving([tmp_path / "run"]) as server:
        named = {"question": "the cell", "answer": "a gene"}
        inputs = [["the cell", "a gene"], named, {"text": "the cell", "text_pair": "a gene"}, "the cell", [["a"]]]
        refused = server.post("/runs/run", {"inputs": inputs})
        assert refused.status_code == 422
        found = server.post("/runs/run", {"inputs": inputs[:4]}).json()["answers"]
        assert found[0]["similarity"] == pytest.approx(found[1]["similarity"]) == pytest.approx(found[2]["similarity"])
        assert "`text` and `text_pair`" in found[3]["error"]
        alone = server.post("/v1/embeddings", {"model": "run", "input": ["the cell"]}).json()["data"][0]["embedding"]
        assert alone == pytest.approx(found[0]["embedding"], abs=1e-5)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A RUN of images that was trained from no store, a store of half of its corpus, and files."""
    folder = tmp_path_factory.mktemp("images")
    data = CorpusSettings((str(images_of(folder / "shapes") / "val"),))
    sides = ImageSettings("none", resize=(32,), crop=(32,))
    model = ModelSettings("shufflenet_v2_x0_5", device="cpu", images=sides)
    job = Job(data, str(folder / "run"), task="image-classification", cut="stage3", model_named=True, tensorboard=False)
    finetune(job, model, TrainingSettings(epochs=1, batch_size=9))
    return folder


@pytest.fixture(scope="module")
def gallery(images):
    settings = ServeSettings(limits=LimitSettings(max_pixels=1_000_000))
    with serving([images / "run"], settings=settings) as server:
        yield server


def test_images_come_as_base64_as_a_data_uri_or_in_a_form(images, gallery):
    files = sorted((images / "shapes" / "val").rglob("*.png"))[:4]
    output = images / "out.jsonl"
    data = CorpusSettings(tuple(map(str, files)))
    predict(data, str(images / "run"), None, str(output), ModelSettings(device="cpu"), PredictSettings())
    expected = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    packed = [base64.b64encode(file.read_bytes()).decode() for file in files]
    plain = gallery.post("/runs/run", {"inputs": packed}).json()["answers"]
    uris = gallery.post("/runs/run", {"inputs": [{"image": f"data:image/png;base64,{one}"} for one in packed]}).json()
    form = gallery.client.post("/runs/run", files=[("image", ("x.png", file.read_bytes())) for file in files]).json()
    assert plain == uris["answers"] == form["answers"]
    for one, line in zip(plain, expected, strict=True):
        assert one["label"] == line["label"]
        assert one["score"] == pytest.approx(line["score"], abs=1e-5)


def png(width, height, rows=None):
    """A PNG of one colour, of which so many rows are there: its file is small, its image is not."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    pixels = zlib.compress(b"\0" * ((width * 3 + 1) * (height if rows is None else rows)), 9)
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_images_that_are_bombs_are_refused_and_no_path_is_read(images, gallery):
    (inside,) = list((SHAPES / "val" / "circle").glob("00.png"))
    bomb = base64.b64encode(png(1200, 1200)).decode()
    bad = {
        bomb: "1,200 x 1,200 pixels",
        str(inside): "not base64",
        "/etc/passwd": "not",
        "file:///etc/passwd": "not base64",
        "data:image/png,abc": "data URI with base64",
        "====": "not base64",
        base64.b64encode(b"GIF89a" + b"\0" * 40).decode(): "image",
        base64.b64encode(random.Random(0).randbytes(200)).decode(): "not an image of a known format",
    }
    good = base64.b64encode(inside.read_bytes()).decode()
    answers = gallery.post("/runs/run", {"inputs": [*bad, good]}).json()["answers"]
    for said, answer in zip(bad.values(), answers, strict=False):
        assert said in answer["error"], answer
        assert len(answer["error"]) < 300
    assert "label" in answers[-1]
    for value in ({"image": {"path": str(inside)}}, {"image": None}, {"text": "a"}, {"path": str(inside)}):
        assert gallery.post("/runs/run", {"inputs": [value]}).status_code == 422
    huge = png(60_000, 60_000, rows=0)
    assert gallery.client.post("/runs/run", files={"image": ("x.png", huge)}).status_code == 422
    for form in ({"other": ("x.png", b"a")}, {}):
        answer = gallery.client.post("/runs/run", files=form, data={"a": "b"} if not form else None)
        assert 400 <= answer.status_code < 500
    for kind, said in (("; boundary=x", "the form cannot be read"), ("", "boundary")):
        headers = {"Content-Type": f"multipart/form-data{kind}"}
        broken = gallery.client.post("/runs/run", content=b"nonsense", headers=headers)
        assert (broken.status_code, broken.json()["error_type"]) == (400, "Validation"), broken.text
        assert said in broken.json()["error"]
