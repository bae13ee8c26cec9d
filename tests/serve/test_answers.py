"""Answers over HTTP are those of `recycle predict` and of the saved model, hit or miss."""

import base64
import json

import numpy as np
import pytest
import torch
import transformers

from recycle_cli.settings import CorpusSettings, ModelSettings, PredictSettings, ServeSettings
from recycle_cli.verbs.predict import predict
from tests.serve.conftest import HELD, OTHERS
from tests.serve.servers import serving


@pytest.fixture(scope="module")
def server(subject):
    with serving([subject.moods, subject.similar], [subject.store]) as server:
        yield server


def texts(records):
    return [record["text"] for record in records]


def embeddings(server, inputs, **more):
    answer = server.post("/v1/embeddings", {"model": "similar", "input": inputs, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("corpus", ["held", "others"])
def test_the_answers_are_the_lines_of_predict(server, subject, tmp_path, corpus):
    data = CorpusSettings((str(subject.folder / f"{corpus}.csv"),))
    output = tmp_path / "out.jsonl"
    predict(data, subject.moods, subject.store, str(output), ModelSettings(), PredictSettings())
    asked = HELD if corpus == "held" else OTHERS
    server.service.groups[0].memory.__init__(0)  # so that every text goes all the way
    answer = server.post("/runs/moods", {"inputs": texts(asked)})
    lines = output.read_text(encoding="utf-8").splitlines()
    assert answer.text.startswith(f'{{"run": "moods", "answers": [{", ".join(lines)}]')
    assert answer.json()["answers"] == [json.loads(line) for line in lines]


def test_hits_are_not_computed_and_are_the_same_as_misses(server, subject):
    server.service.groups[0].memory.__init__(0)
    before = server.samples("hit", "similar"), server.samples("miss", "similar")
    hits = embeddings(server, texts(HELD))
    assert server.samples("hit", "similar") - before[0] == len({*texts(HELD)}) == len(HELD)
    misses = embeddings(server, texts(OTHERS))
    assert server.samples("miss", "similar") - before[1] == len(OTHERS)
    with serving([subject.similar]) as plain:
        for found, asked in ((hits, HELD), (misses, OTHERS)):
            expected = embeddings(plain, texts(asked))
            np.testing.assert_allclose(
                [one["embedding"] for one in found["data"]], [one["embedding"] for one in expected["data"]], atol=1e-5
            )
            assert found["usage"] == expected["usage"]


def test_base64_is_little_endian_float32(server):
    asked = texts(OTHERS)[:3]
    plain, packed = embeddings(server, asked), embeddings(server, asked, encoding_format="base64")
    for one, other in zip(plain["data"], packed["data"], strict=True):
        decoded = np.frombuffer(base64.b64decode(other["embedding"]), "<f4")
        assert decoded.tolist() == np.array(one["embedding"], np.float32).tolist()
        assert np.linalg.norm(decoded) == pytest.approx(1, abs=1e-5)


def test_the_scores_are_those_of_the_checkpoint(server, subject):
    network = transformers.AutoModelForSequenceClassification.from_pretrained(subject.moods).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(subject.moods)
    asked = texts(HELD[:5] + OTHERS[:5])
    answers = server.post("/runs/moods", {"inputs": asked}).json()["answers"]
    with torch.no_grad():
        for text, answer in zip(asked, answers, strict=True):
            logits = network(**tokenizer(text, truncation=True, return_tensors="pt")).logits
            expected = torch.softmax(logits, 1)[0]
            assert answer["label"] == network.config.id2label[int(expected.argmax())]
            assert answer["score"] == pytest.approx(float(expected.max()), abs=1e-5)


def test_all_runs_answer_at_once_from_one_pass(server):
    group = server.service.groups[0]
    group.memory.__init__(0)
    passes, trunk = [], group.misses.trunk.trunk
    object.__setattr__(group.misses.split, "trunk", lambda batch: passes.append(1) or trunk(batch))
    try:
        asked = texts(OTHERS)[10:14]
        both = server.post("/runs", {"inputs": asked}).json()["runs"]
    finally:
        object.__setattr__(group.misses.split, "trunk", trunk)
    assert len(passes) == 1
    assert both["moods"]["answers"] == server.post("/runs/moods", {"inputs": asked}).json()["answers"]
    expected = embeddings(server, asked)["data"]
    for one, other in zip(both["similar"]["answers"], expected, strict=True):
        np.testing.assert_allclose(one["embedding"], other["embedding"], atol=1e-6)


def test_a_bad_input_fails_alone(server):
    answers = server.post("/runs/moods", {"inputs": ["a good paper", "", {"id": "x", "text": "the cell"}, ["a", "b"]]})
    assert answers.status_code == 200
    good, empty, named, pair = answers.json()["answers"]
    assert "label" in good
    assert empty == {"id": "1", "error": "the text in field 'text' is empty"}
    assert named["id"] == "x"
    assert "label" in named
    assert "as the run was trained on" in pair["error"]


def test_what_is_cut_off_is_told_or_refused(server):
    long, short = " ".join(["good"] * 40), "a good paper"
    told = embeddings(server, [short, long])
    assert told["truncated"] == [1]
    assert told["usage"]["prompt_tokens"] == 5 + 16
    assert "truncated" not in embeddings(server, short)
    refused = server.post("/v1/embeddings", {"model": "similar", "input": [short, long], "truncate": False})
    assert refused.status_code == 400
    assert "input 1 is longer than the 16 tokens" in refused.json()["error"]["message"]
    assert server.post("/runs/moods", {"inputs": [long]}).json()["truncated"] == [0]


def test_a_model_without_a_run_embeds_as_sentence_transformers_does(subject, tmp_path):
    network = transformers.AutoModel.from_pretrained(subject.model).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(subject.model)
    with serving([f"bert={subject.model}"], [subject.store]) as server:
        data = server.post("/v1/embeddings", {"model": "bert", "input": texts(HELD[:3] + OTHERS[:3])}).json()["data"]
        assert (server.samples("hit", "bert"), server.samples("miss", "bert")) == (3, 3)
    with torch.no_grad():
        for text, one in zip(texts(HELD[:3] + OTHERS[:3]), data, strict=True):
            rows = network(**tokenizer(text, truncation=True, max_length=16, return_tensors="pt"))[0]
            expected = torch.nn.functional.normalize(rows.mean(dim=1), dim=1)[0]
            assert float(expected @ torch.tensor(one["embedding"])) >= 0.9999


def test_the_models_are_listed(server):
    listed = server.client.get("/v1/models").json()
    assert [one["id"] for one in listed["data"]] == ["moods", "similar"]
    assert {"id", "object", "created", "owned_by"} == set(listed["data"][0])
    assert server.client.get("/v1/models/moods").json()["id"] == "moods"
    assert server.client.get("/v1/models/none").status_code == 404


def test_a_request_has_an_id_of_its_own_or_its_clients(server):
    assert server.client.get("/v1/models", headers={"X-Request-Id": "mine-1"}).headers["x-request-id"] == "mine-1"
    made = server.client.get("/v1/models", headers={"X-Request-Id": "a b\tc"}).headers["x-request-id"]
    assert len(made) == 32


def test_the_documents_of_the_endpoints_are_there(server):
    document = server.client.get("/openapi.json").json()
    assert {"/v1/embeddings", "/v1/models", "/runs/{name}", "/runs"} <= set(document["paths"])
    assert json.dumps(document).count("#/components/schemas/EmbeddingRequest") == 1


def test_the_figures_are_by_endpoint_and_by_run(server):
    server.client.get("/nowhere")
    server.post("/runs/moods", {"inputs": ["the cell", HELD[0]["text"]]})
    server.post("/v1/embeddings", {"model": "similar", "input": "the cell"})
    found = server.client.get("/metrics").text
    for line in (
        'recycle_requests_total{endpoint="/runs/{name}",status="200"}',
        'recycle_requests_total{endpoint="other",status="404"}',
        'recycle_request_seconds_count{endpoint="/v1/embeddings"}',
        'recycle_samples_total{kind="hit",run="moods"}',
        'recycle_batch_tokens_sum{kind="miss"}',
        'recycle_store_bytes{run="similar"}',
        "recycle_queue_tokens 0.0",
    ):
        assert line in found


def test_hits_are_told_only_if_that_was_asked_for(server, subject):
    body = {"model": "similar", "input": [*texts(HELD[:2]), "a good paper"]}
    plain = server.post("/v1/embeddings", body)
    assert not [name for name in plain.headers if "hit" in name or name.startswith("x-recycle")]
    with serving([subject.similar], [subject.store], ServeSettings(debug_headers=True)) as told:
        assert told.post("/v1/embeddings", body).headers["x-recycle-hits"] == "2/3"
