"""Similarity on pairs: losses and metrics by hand, learnt from a store as in place, each text stored once, and saved
for sentence-transformers."""

import json
import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows it by
from sentence_transformers import SentenceTransformer

from recycle_cli.batches import Paired
from recycle_cli.errors import DataError, UsageError
from recycle_cli.models.outputs import Outputs
from recycle_cli.settings import CorpusSettings, EmbeddingSettings, ModelSettings, PairSettings, SampleSettings
from recycle_cli.store import Store
from recycle_cli.tasks import PairSimilarity
from recycle_cli.tasks.pair_losses import cosent, multiple_negatives
from recycle_cli.tasks.pair_retrieval import partner_figures
from tests.records import records, write_csv
from tests.trainings import SETTINGS, Tried, learns_as_in_place, resumes_exactly, trained

LINEAR = EmbeddingSettings("linear", 16)


def pairs(count, seed=0, scored=False):
    """Texts and their words in another order; every third has the answer of the one before."""
    draw = random.Random(seed)
    rows = []
    for number, row in enumerate(records(count, seed, longest=8)):
        words = row["text"].split()
        draw.shuffle(words)
        answer = rows[-1]["answer"] if number % 3 == 2 and not scored else " ".join([*words, "the"])
        rows.append({"question": row["text"], "answer": answer})
        if scored:
            rows[-1]["score"] = str(round(draw.random(), 2))
    return rows


def make(folder, tiny, settings=PairSettings(embedding=LINEAR), **more):  # noqa: B008
    sizes = {"train": (36, 0), "test": (15, 1)}
    paths = [write_csv(folder / f"{name}.csv", pairs(*size, **more)) for name, size in sizes.items()]
    train, test = (CorpusSettings((str(path),)) for path in paths)
    samples = {"samples": SampleSettings("pair-similarity")}
    return Tried("pair-similarity", settings, folder, ModelSettings(str(tiny), None, 24), train, test, samples)


@pytest.fixture
def tried(tmp_path, tiny_bert):
    return make(tmp_path, tiny_bert)


@pytest.fixture(scope="module")
def filled(tmp_path_factory, tiny_bert):
    """The same with its store, for all tests that change neither."""
    tried = make(tmp_path_factory.mktemp("pairs"), tiny_bert)
    tried.fill()
    return tried


# Losses


def test_the_partner_is_told_from_the_others_of_the_batch():
    first, second = torch.randn(2, 5, 8)
    contents = (torch.arange(5), torch.arange(5, 10))
    similarity = 20 * (1 + F.cosine_similarity(first[:, None], second[None], dim=-1)) / 2
    by_hand = (F.cross_entropy(similarity, torch.arange(5)) + F.cross_entropy(similarity.T, torch.arange(5))) / 2
    assert float(multiple_negatives(first, second, contents, 20.0).mean()) == pytest.approx(float(by_hand), rel=1e-5)


def test_a_duplicate_of_the_partner_is_no_negative():
    """Pairs 0 and 2 have one answer, 1 and 3 one question: by hand each is left out of the other's softmax."""
    first, second = torch.randn(2, 4, 8)
    second[2], first[3] = second[0], first[1]
    contents = (torch.tensor([0, 1, 2, 1]), torch.tensor([4, 5, 4, 6]))
    similarity = 20 * (1 + F.cosine_similarity(first[:, None], second[None], dim=-1)) / 2
    left = {0: [0, 1, 3], 1: [0, 1, 2], 2: [1, 2, 3], 3: [0, 2, 3]}
    found = multiple_negatives(first, second, contents, 20.0)
    for pair, others in left.items():
        forth = torch.logsumexp(similarity[pair, others], 0) - similarity[pair, pair]
        back = torch.logsumexp(similarity[others, pair], 0) - similarity[pair, pair]
        assert float(found[pair]) == pytest.approx(float(forth + back) / 2, rel=1e-4, abs=1e-5)


def test_cosent_by_hand():
    cosines, scores = torch.tensor([0.9, 0.1, 0.5]), torch.tensor([0.2, 0.8, 0.2])
    by_hand = math.log(1 + math.exp(20 * (0.9 - 0.1)) + math.exp(20 * (0.5 - 0.1)))
    assert float(cosent(cosines, scores, 20.0)) == pytest.approx(by_hand, rel=1e-5)
    assert float(cosent(cosines, torch.ones(3), 20.0)) == 0.0


def test_cosine_mse_is_the_mean_over_pairs():
    task = PairSimilarity(PairSettings("cosine-mse"))
    values, targets = torch.randn(6, 8), torch.tensor([[0, 0.5], [1, 0.5], [2, -1], [3, -1], [4, 1], [5, 1]])
    total, weight = task.loss(Outputs(values), targets, None)
    cosines = F.cosine_similarity(values[0::2], values[1::2])
    assert float(total / weight) == pytest.approx(float((cosines - torch.tensor([0.5, -1, 1])).square().mean()))


# Metrics


def test_figures_by_hand():
    """Four texts on a circle. Of each: the others by similarity, and where its partner is."""
    angles = torch.tensor([0.0, 10.0, 13.0, 90.0]).deg2rad()
    vectors = torch.stack([angles.cos(), angles.sin()], dim=1)
    # 0-1: 0 finds 1 first; 1 finds 2 before 0. 2-3: 2 finds 1, 0, 3; 3 finds 2 first.
    found = partner_figures(vectors, torch.arange(4))
    assert found["rrk"] == pytest.approx((1 + 1 / 2 + 1 / 3 + 1) / 4)
    assert found["precision_at_1"] == 0.5
    assert found["recall_at_10"] == 1.0
    assert found["ndcg_at_10"] == pytest.approx((1 + 1 / math.log2(3) + 1 / math.log2(4) + 1) / 4)


def test_a_repeated_text_is_one_candidate_with_several_partners():
    """Questions 0 and 2 share answer 1. The answer's copies do not stand in each other's way."""
    angles = torch.tensor([0.0, 10.0, 25.0, 10.0]).deg2rad()
    vectors = torch.stack([angles.cos(), angles.sin()], dim=1)
    found = partner_figures(vectors, torch.tensor([0, 1, 2, 1]))
    assert found == {"rrk": 1.0, "precision_at_1": 1.0, "recall_at_10": 1.0, "ndcg_at_10": 1.0}


def test_vectors_that_are_all_the_same_find_nothing():
    found = partner_figures(torch.ones(8, 4), torch.arange(8))
    assert found["precision_at_1"] == 0.0
    assert found["rrk"] == pytest.approx(1 / 7)


def test_batches_are_whole_pairs():
    lengths = np.random.default_rng(0).integers(3, 30, 34)
    batches = Paired(4, 0).batches(lengths, 1)
    assert sorted(np.concatenate(batches).tolist()) == list(range(34))
    assert min(map(len, batches)) >= 4
    for batch in batches:
        assert (batch[1::2] == batch[0::2] + 1).all()
        assert (batch[0::2] % 2 == 0).all()
    with pytest.raises(UsageError, match="pairs cannot be read in windows"):
        Paired(4, 0).among(np.arange(3))


# From a store


def test_it_learns_from_a_store_as_in_place_and_stores_each_text_once(filled):
    texts = {text for seed, count in ((0, 36), (1, 15)) for row in pairs(count, seed) for text in row.values()}
    assert len(Store.open(filled.store)) == len(texts) < 2 * 51
    stored, inplace = learns_as_in_place(filled, rtol=0)
    assert stored.metrics == pytest.approx(inplace.metrics)
    assert set(stored.metrics) == {"rrk", "precision_at_1", "recall_at_10", "ndcg_at_10"}
    assert stored.samples == 72


def test_it_resumes_exactly(filled):
    resumes_exactly(filled)


def test_hits_misses_and_write_back_give_the_vectors_of_sentence_transformers(filled):
    report = trained(filled)
    hits, rows = filled.score("stored", filled.store)
    assert (hits.misses, hits.samples, len(rows)) == (0, 30, 15)
    assert hits.metrics == pytest.approx(report.metrics)
    partial = str(filled.folder / "partial")
    filled.fill(partial, limit=3)
    mixed, others = filled.score("stored", partial, write_back=True)
    assert Store.open(partial).origins == {"--task pair-similarity"}
    assert mixed.misses
    asked = pairs(15, 1)
    model = SentenceTransformer(str(filled.folder / "stored"), device="cpu")
    for side, column in (("embedding", "question"), ("embedding_pair", "answer")):
        expected = model.encode([row[column] for row in asked])
        for found in (rows, others):
            np.testing.assert_allclose([row[side] for row in found], expected, atol=1e-5)
    for row in rows:
        assert row["similarity"] == pytest.approx(float(np.dot(row["embedding"], row["embedding_pair"])), abs=1e-5)


@pytest.mark.parametrize("loss", ["cosent", "cosine-mse"])
def test_scored_pairs(tmp_path, tiny_bert, loss):
    tried = make(tmp_path, tiny_bert, PairSettings(loss, embedding=LINEAR), scored=True)
    tried.fill()
    stored, inplace = learns_as_in_place(tried, rtol=0, atol=2e-5)
    assert stored.metrics == pytest.approx(inplace.metrics, abs=1e-3)
    found, _ = tried.score("stored", tried.store)
    assert found.metrics == pytest.approx(stored.metrics)
    assert set(found.metrics) == {"spearman"}


# What cannot be used


def test_a_pair_with_one_side_missing_is_told_with_file_and_record(tried):
    path = tried.folder / "train.jsonl"
    broken = replace(tried, train=CorpusSettings((str(path),)))
    rows = [{"question": "a cell", "answer": "red"}, {"question": "a gene", "answer": ""}, {"question": "a"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=r"train\.jsonl, record 2: the text in column 'answer' is empty"):
        broken.fill()
    path.write_text(path.read_text().replace('""', '"red"'))
    with pytest.raises(DataError, match=r"train\.jsonl, record 3: no text in column 'answer'"):
        broken.fill()


def test_columns_that_are_not_clear_are_named(tried):
    path = tried.folder / "data.jsonl"
    path.write_text(json.dumps({"one": "a cell", "two": "red"}) + "\n")
    with pytest.raises(DataError, match=r"which columns hold the two texts .* the columns are: one, two"):
        replace(tried, train=CorpusSettings((str(path),))).fill()
    replace(tried, train=CorpusSettings((str(path),), text_column="one", text_pair_column="two")).fill()


def test_options_and_scores_that_do_not_fit(tmp_path, tiny_bert):
    plain = make(tmp_path, tiny_bert, scored=True)
    with pytest.raises(UsageError, match="--label-column score: pairs are learnt without scores"):
        replace(plain, train=replace(plain.train, label_column="score")).fit("run", cut="2")
    wide = CorpusSettings((str(tmp_path / "wide.csv"),))
    (tmp_path / "wide.csv").write_text("question,answer,score\na cell,red,4.5\na gene,bad,1\nmodel,data,0\n")
    mse = replace(plain, train=wide, settings=PairSettings("cosine-mse", embedding=LINEAR))
    with pytest.raises(DataError, match=r"a score is 4\.5, and cosines go from -1 to 1"):
        mse.fit("run", cut="2")
    with pytest.raises(UsageError, match="--pair-scale 10: --pair-loss cosine-mse has none"):
        replace(mse, settings=PairSettings("cosine-mse", 10.0)).fit("run", cut="2")
    with pytest.raises(UsageError, match="--batch-size 1: a pair is told from the others"):
        plain.fit("run", replace(SETTINGS, batch_size=1), cut="2")
