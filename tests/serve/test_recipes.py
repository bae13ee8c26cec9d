"""Several recipes side by side, and RUNs that share a trunk without a store."""

import numpy as np
import pytest

from recycle_cli.errors import MismatchError, UsageError
from recycle_cli.serve.opening import named
from recycle_cli.settings import CorpusSettings, ModelSettings, PrecomputeSettings, ServeSettings
from recycle_cli.verbs.precompute import precompute
from tests.conftest import save_tiny, tiny_config
from tests.serve.conftest import HELD, OTHERS
from tests.serve.servers import serving

HELD_TEXTS, OTHER_TEXTS = ([record["text"] for record in rows] for rows in (HELD, OTHERS))


@pytest.fixture(scope="module")
def other(subject, tmp_path_factory):
    """Another model, and a store of its pooled vectors."""
    folder = tmp_path_factory.mktemp("other")
    model = save_tiny(folder, tiny_config(hidden_size=16), seed=7, bare=True)
    data = CorpusSettings((str(subject.folder / "held.csv"),))
    store = str(folder / "store")
    precompute(
        data, store, ModelSettings(str(model), None, 24), PrecomputeSettings(("100%",), "float32", pool=("mean",))
    )
    return str(model), store


def test_each_run_takes_the_store_that_fits_and_all_answer(subject, other):
    model, store = other
    words, settings = [subject.moods, f"other={model}", f"base={subject.model}"], ServeSettings(memory=1)
    with serving(words, [store, subject.store], settings) as server:
        assert len(server.service.groups) == 2
        for name in ("other", "base"):
            data = server.post("/v1/embeddings", {"model": name, "input": HELD_TEXTS + OTHER_TEXTS}).json()["data"]
            assert len(data[0]["embedding"]) == (16 if name == "other" else 32)
            assert (server.samples("hit", name), server.samples("miss", name)) == (len(HELD), len(OTHERS))
        found = server.post("/runs", {"inputs": HELD_TEXTS[:2], "runs": ["other", "moods"]}).json()["runs"]
        assert list(found) == ["other", "moods"]
        vectors = np.array([one["embedding"] for one in found["other"]["answers"]])
    with serving([f"other={model}"]) as plain:
        data = plain.post("/v1/embeddings", {"model": "other", "input": HELD_TEXTS[:2]}).json()["data"]
        np.testing.assert_allclose(vectors, [one["embedding"] for one in data], atol=1e-5)


def test_pooled_vectors_are_a_hit_without_anything_left_to_compute_and_count_their_tokens(other):
    model, store = other
    asked = [*HELD_TEXTS[:3], " ".join(["good"] * 40)]
    with serving([f"other={model}"], [store]) as server, serving([f"other={model}"], settings=ServeSettings()) as plain:
        found = server.post("/v1/embeddings", {"model": "other", "input": asked}).json()
        expected = plain.post("/v1/embeddings", {"model": "other", "input": asked}).json()
        assert server.samples("hit", "other") == 3
        held = [len(text.split()) + 2 for text in HELD_TEXTS[:3]]
        assert found["usage"]["prompt_tokens"] == sum(held) + 24
        assert found["truncated"] == [3]
        for one, two in zip(found["data"][:3], expected["data"][:3], strict=True):
            np.testing.assert_allclose(one["embedding"], two["embedding"], atol=1e-5)


def test_runs_with_one_trunk_share_its_pass_without_a_store(subject):
    with serving([subject.moods, subject.similar], settings=ServeSettings(memory=1)) as server:
        (group,) = server.service.groups
        passes, first = [], group.misses.first.head.split
        trunk = first.trunk_to
        object.__setattr__(first, "trunk_to", lambda cut: passes.append(cut) or trunk(cut))
        both = server.post("/runs", {"inputs": OTHER_TEXTS[:5]}).json()["runs"]
        assert passes == ["2"]
        alone = server.post("/runs/moods", {"inputs": OTHER_TEXTS[:5]}).json()["answers"]
        assert passes == ["2"]
        for one, two in zip(both["moods"]["answers"], alone, strict=True):
            assert one["score"] == pytest.approx(two["score"], abs=1e-5)
        weights = [dict(run.head.split.model.named_parameters()) for run in group.misses.runs.values()]
        bare = [next(one for one in own if one.endswith("layer.0.attention.self.query.weight")) for own in weights]
        assert weights[0][bare[0]].data_ptr() == weights[1][bare[1]].data_ptr()


def test_a_store_that_fits_nothing_is_refused(subject, other):
    with pytest.raises(MismatchError), serving([subject.moods], [other[1]]):
        pass
    with (
        pytest.raises(UsageError, match="nothing that is served reads it"),
        serving([subject.moods], [other[1], subject.store]),
    ):
        pass


def test_names_are_those_of_folders_or_given(subject):
    assert [one.name for one in named([subject.moods, f"b={subject.similar}", "org/model"])] == [
        "moods",
        "b",
        "org/model",
    ]
    with pytest.raises(UsageError, match="two are called moods"):
        named([subject.moods, f"moods={subject.similar}"])
    with pytest.raises(UsageError, match="can be no name"):
        named([f"a b={subject.moods}"])
