"""Real clients against a running server, with MiniLM itself and with RUNs."""

import json
import subprocess

import huggingface_hub
import numpy as np
import pytest
import torch
import transformers

from recycle_cli.models.hub import place_of
from recycle_cli.settings import CorpusSettings, ModelSettings, PrecomputeSettings
from recycle_cli.verbs.precompute import precompute
from tests.records import write_csv
from tests.serve.servers import serving

KEY = "a-key-of-enough-letters"

HELD = ["A man is eating food.", "The girl is carrying a baby.", "Zellkerne teilen sich."]
MISSING = ["A man is riding a horse.", "Someone is playing guitar, while a monkey plays drums."]


@pytest.fixture(scope="module", params=["3", "6"])
def server(request, minilm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("minilm")
    data = CorpusSettings((str(write_csv(folder / "held.csv", [{"text": text} for text in HELD])),))
    model = ModelSettings(minilm, None, 256)
    precompute(data, str(folder / "store"), model, PrecomputeSettings((request.param,), "float16"))
    with serving([f"minilm={minilm}"], [folder / "store"], keys=[KEY]) as server:
        yield server


@pytest.fixture(scope="module")
def expected(minilm):
    """The vectors of sentence-transformers: means over the tokens of the last block, of length one."""
    place = place_of(minilm, None)
    network, tokenizer = (
        transformers.AutoModel.from_pretrained(place),
        transformers.AutoTokenizer.from_pretrained(place),
    )
    with torch.no_grad():
        each = [network(**tokenizer(text, return_tensors="pt"))[0].mean(1)[0] for text in HELD + MISSING]
    return torch.nn.functional.normalize(torch.stack(each), dim=1).numpy()


def check(found, expected):
    found = np.array(found, dtype=np.float32)
    assert found.shape == expected.shape
    assert (found * expected).sum(axis=1).min() >= 0.9999


def test_openai(server, expected):
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0)
    before = server.samples("hit", "minilm"), server.samples("miss", "minilm")
    answer = client.embeddings.create(model="minilm", input=HELD + MISSING)
    assert server.samples("hit", "minilm") - before[0] == len(HELD)
    assert server.samples("miss", "minilm") - before[1] == len(MISSING)
    check([one.embedding for one in answer.data], expected)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 40
    plain = client.embeddings.create(model="minilm", input=HELD[0], encoding_format="float")
    check([plain.data[0].embedding], expected[:1])
    assert [one.id for one in client.models.list()] == ["minilm"]
    with pytest.raises(openai.NotFoundError, match="no model 'other' here"):
        client.embeddings.create(model="other", input="a")
    with pytest.raises(openai.BadRequestError, match="minilm has 384"):
        client.embeddings.create(model="minilm", input="a", dimensions=128)
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong", max_retries=0).models.list()


def test_langchain(server, expected):
    langchain = pytest.importorskip("langchain_openai")
    embedder = langchain.OpenAIEmbeddings(
        model="minilm", base_url=f"{server.url}/v1", api_key=KEY, check_embedding_ctx_length=False
    )
    check(embedder.embed_documents(HELD + MISSING), expected)
    check([embedder.embed_query(MISSING[0])], expected[3:4])


@pytest.fixture
def online(monkeypatch):
    """The tests are offline; this client then sends nothing at all."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)


@pytest.mark.usefixtures("online")
def test_huggingface_hub(server, expected):
    client = huggingface_hub.InferenceClient(model=f"{server.url}/embed", token=KEY)
    check(client.feature_extraction(HELD + MISSING), expected)
    check(client.feature_extraction(MISSING[0], normalize=True, truncate=True), expected[3:4])
    client = huggingface_hub.InferenceClient(model=f"{server.url}/similarity", token=KEY)
    cosines = client.sentence_similarity(HELD[0], HELD + MISSING)
    np.testing.assert_allclose(cosines, expected @ expected[0], atol=1e-3)


@pytest.mark.usefixtures("online")
def test_huggingface_hub_classifies(subject):
    texts = ["a good paper", "the cell is slow"]
    pipeline = transformers.pipeline("text-classification", subject.moods, device="cpu")
    with serving([subject.moods], [subject.store]) as server:
        client = huggingface_hub.InferenceClient(model=f"{server.url}/predict")
        for text in texts:
            found, expected = client.text_classification(text, top_k=1), pipeline(text)[0]
            assert found.label == expected["label"]
            assert found.score == pytest.approx(expected["score"], abs=1e-5)


def test_curl(server, expected):
    sent = '{"model": "minilm", "input": "A man is eating food."}'
    command = ["curl", "-s", "--noproxy", "*", f"{server.url}/v1/embeddings", "-H", f"Authorization: Bearer {KEY}"]
    try:
        found = subprocess.run(
            [*command, "-H", "Content-Type: application/json", "-d", sent], capture_output=True, check=True
        ).stdout
    except FileNotFoundError:
        pytest.skip("needs curl")
    check([json.loads(found)["data"][0]["embedding"]], expected[:1])
