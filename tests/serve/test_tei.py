"""The endpoints of Text Embeddings Inference: shapes, order, errors."""

import numpy as np
import pytest
import torch
import transformers

from recycle_cli.settings import ServeSettings
from tests.serve.conftest import HELD, OTHERS
from tests.serve.servers import serving

TEXTS = [record["text"] for record in HELD[:3] + OTHERS[:3]]


@pytest.fixture(scope="module")
def server(subject):
    with serving([subject.moods, subject.similar], [subject.store], ServeSettings(accept_token_ids=True)) as server:
        yield server


def asked(server, path, body):
    answer = server.post(path, body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def openai(server, texts):
    answer = server.post("/v1/embeddings", {"model": "similar", "input": texts}).json()
    return [one["embedding"] for one in answer["data"]]


def test_embed_is_always_a_list_of_lists(server):
    np.testing.assert_allclose(asked(server, "/embed", {"inputs": TEXTS}), openai(server, TEXTS), atol=1e-6)
    (alone,) = asked(server, "/embed", {"inputs": TEXTS[0]})
    np.testing.assert_allclose(alone, openai(server, TEXTS[:1])[0], atol=1e-6)
    (raw,) = asked(server, "/embed", {"inputs": TEXTS[0], "normalize": False})
    assert abs(np.linalg.norm(raw) - 1) > 1e-3
    np.testing.assert_allclose(np.array(raw) / np.linalg.norm(raw), alone, atol=1e-6)


def test_token_ids_are_decoded_if_the_server_was_told_whose_they_are(server):
    ids = [[piece["id"] for piece in pieces] for pieces in asked(server, "/tokenize", {"inputs": TEXTS[:2]})]
    np.testing.assert_allclose(asked(server, "/embed", {"inputs": ids}), openai(server, TEXTS[:2]), atol=1e-6)
    np.testing.assert_allclose(asked(server, "/embed", {"inputs": ids[0]}), openai(server, TEXTS[:1]), atol=1e-6)
    np.testing.assert_allclose(openai(server, ids), openai(server, TEXTS[:2]), atol=1e-6)
    assert server.post("/embed", {"inputs": [2_000_000]}).status_code == 422
    long = ids[0][1:-1] * 1000  # one input, however many ids it has
    for path, name in (("/embed", "inputs"), ("/v1/embeddings", "input")):
        body = {name: long} if name == "inputs" else {"model": "similar", name: long}
        assert server.post(path, body).status_code == 200


def test_embed_all_gives_a_row_for_each_token_at_the_cut(server, subject):
    network = transformers.AutoModel.from_pretrained(subject.model).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(subject.model)
    found = asked(server, "/embed_all", {"inputs": TEXTS})
    for text, rows in zip(TEXTS, found, strict=True):
        with torch.no_grad():
            inputs = tokenizer(text, truncation=True, max_length=16, return_tensors="pt")
            expected = network(**inputs, output_hidden_states=True).hidden_states[2][0]
        np.testing.assert_allclose(rows, expected, atol=1e-4)


def test_predict_sorts_by_score_and_tells_pairs_from_batches(server):
    answers = server.post("/runs/moods", {"inputs": TEXTS}).json()["answers"]
    one = asked(server, "/predict", {"inputs": TEXTS[0]})
    assert [list(each) for each in one] == [["score", "label"]] * len(one)
    assert one[0]["label"] == answers[0]["label"]
    assert one[0]["score"] == answers[0]["score"]
    assert sum(each["score"] for each in one) == pytest.approx(1)
    batch = asked(server, "/predict", {"inputs": [[text] for text in TEXTS]})
    assert [each[0]["label"] for each in batch] == [answer["label"] for answer in answers]
    raw = asked(server, "/predict", {"inputs": TEXTS[0], "raw_scores": True})
    assert [each["label"] for each in raw] == [each["label"] for each in one]
    assert torch.softmax(torch.tensor([each["score"] for each in raw]), 0).tolist() == pytest.approx(
        [each["score"] for each in one], abs=1e-5
    )
    pair = server.post("/predict", {"inputs": TEXTS[:2]})
    assert pair.status_code == 422
    assert "trained on" in pair.json()["error"]


def test_a_run_that_cannot_answer_is_named_with_what_it_lacks(server):
    found = server.post("/embed?model=moods", {"inputs": "a"}).json()["error"]
    assert found == "moods is no model that gives embeddings"


def test_similarity_is_the_cosine(server):
    vectors = np.array(openai(server, TEXTS))
    found = asked(server, "/similarity", {"inputs": {"source_sentence": TEXTS[0], "sentences": TEXTS}})
    np.testing.assert_allclose(found, vectors @ vectors[0], atol=1e-5)
    assert found[0] == pytest.approx(1, abs=1e-5)


def test_tokenize_and_decode_are_those_of_the_tokenizer(server):
    (pieces,) = asked(server, "/tokenize", {"inputs": "the cell  paper"})
    assert [piece["text"] for piece in pieces] == ["[CLS]", "the", "cell", "paper", "[SEP]"]
    assert [(piece["start"], piece["stop"]) for piece in pieces] == [
        (None, None),
        (0, 3),
        (4, 8),
        (10, 15),
        (None, None),
    ]
    assert [piece["special"] for piece in pieces] == [True, False, False, False, True]
    (plain,) = asked(server, "/tokenize", {"inputs": "the cell", "add_special_tokens": False})
    assert len(plain) == 2
    ids = [piece["id"] for piece in pieces]
    assert asked(server, "/decode", {"ids": ids}) == ["the cell paper"]
    assert (
        asked(server, "/decode", {"ids": [ids, ids], "skip_special_tokens": False})
        == ["[CLS] the cell paper [SEP]"] * 2
    )


def test_info_has_the_required_fields(server):
    found = asked_get(server, "/info")
    required = (
        "model_id model_dtype served_model_name model_type max_concurrent_requests max_input_length max_batch_tokens "
        "max_client_batch_size auto_truncate tokenization_workers version"
    )
    assert set(required.split()) <= set(found)
    assert found["max_input_length"] == 16
    assert set(found["model_type"]["classifier"]) == {"id2label", "label2id"}
    assert asked_get(server, "/info?model=similar")["model_type"] == {"embedding": {"pooling": "mean"}}


def asked_get(server, path):
    return server.client.get(path).json()


@pytest.mark.parametrize(
    ("path", "body", "status", "kind"),
    [
        ("/embed", {"inputs": ""}, 400, "Empty"),
        ("/embed", {"inputs": []}, 400, "Empty"),
        ("/embed", {"inputs": ["a"] * 3000}, 422, "Validation"),
        ("/embed", {"input": "a"}, 422, "Validation"),
        ("/embed", {"inputs": "a", "truncation_direction": "Left"}, 422, "Validation"),
        ("/embed", {"inputs": "a", "prompt_name": "query"}, 422, "Validation"),
        ("/embed", {"inputs": "a", "dimensions": 8}, 422, "Validation"),
        ("/embed", {"inputs": "good " * 40, "truncate": False}, 422, "Validation"),
        ("/embed?model=moods", {"inputs": "a"}, 424, "Backend"),
        ("/predict?model=similar", {"inputs": "a"}, 424, "Backend"),
        ("/embed?model=none", {"inputs": "a"}, 404, "NotFound"),
        ("/predict", {"inputs": ["a", "b", "c"]}, 422, "Validation"),
        ("/decode", {"ids": [2_000_000]}, 422, "Validation"),
        ("/decode", {"ids": []}, 400, "Empty"),
        ("/tokenize", {"inputs": ["a " * 200_000]}, 422, "Validation"),
        ("/similarity", {"inputs": {"source_sentence": "a", "sentences": []}}, 400, "Empty"),
        ("/rerank", {"query": "a", "texts": ["b"]}, 404, "NotFound"),
    ],
)
def test_errors_have_their_code_and_type(server, path, body, status, kind):
    answer = server.post(path, body)
    assert (answer.status_code, answer.json()["error_type"]) == (status, kind)
    assert set(answer.json()) == {"error", "error_type"}
