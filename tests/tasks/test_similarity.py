"""Similarity from groups of texts to a RUN: from a store and without one, alone and several heads at once."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers

from recycle_cli.errors import DataError, UsageError
from recycle_cli.settings import (
    AdapterSettings,
    ClassificationSettings,
    CorpusSettings,
    EmbeddingSettings,
    HeadSettings,
    ModelSettings,
    PrecomputeSettings,
    SimilaritySettings,
    TrainingSettings,
)
from recycle_cli.verbs.finetune import Job, finetune, finetune_heads
from recycle_cli.verbs.precompute import precompute
from tests.records import records, write_csv
from tests.tasks.results import rrps, score, vectors
from tests.trainings import losses, stopped_after

LINEAR = EmbeddingSettings("linear", 8)
TRIPLET = SimilaritySettings(group_samples=3)
CONTRASTIVE = SimilaritySettings("supervised-contrastive", group_samples=2, embedding=LINEAR)
SETTINGS = TrainingSettings(epochs=2, batch_size=12, learning_rate=2e-3, task=TRIPLET)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("similarity")


@pytest.fixture(scope="module")
def train(folder):
    return CorpusSettings((str(write_csv(folder / "train.csv", records(60))),))


@pytest.fixture(scope="module")
def test(folder):
    """Groups that training has not seen by their names, except one."""
    return CorpusSettings((str(write_csv(folder / "test.csv", renamed(records(30, seed=1)))),))


@pytest.fixture(scope="module")
def model(tiny_bert):
    return ModelSettings(str(tiny_bert), None, 16)


@pytest.fixture(scope="module")
def store(folder, train, test, model):
    both = CorpusSettings((*train.source, *test.source))
    precompute(both, str(folder / "store"), model, PrecomputeSettings(("2",), "float32"))
    return str(folder / "store")


@pytest.fixture
def fit(train, test, store, model):
    """Fine-tune from the store, or with `store=None` from the inputs, evaluating on unseen groups."""

    def fit(output, settings=SETTINGS, **changes):
        fields = {"store": store, "evaluation": test, "cut": "2", "task": "similarity", "model_named": True, **changes}
        return finetune(Job(train, str(output), tensorboard=False, **fields), model, settings)

    return fit


def renamed(rows):
    """Groups that mean the same and have other names."""
    names = {"bio": "law", "code": "sport", "art": "art"}
    return [{**row, "label": names[row["label"]]} for row in rows]


@pytest.mark.parametrize("similarity", [TRIPLET, CONTRASTIVE], ids=["triplet-skip", "contrastive-linear"])
def test_losses_from_the_store_are_those_with_the_frozen_trunk_in_place(fit, tmp_path, similarity):
    settings = replace(SETTINGS, task=similarity)
    fit(tmp_path / "stored", settings)
    fit(tmp_path / "inplace", settings, store=None)
    stored, inplace = losses(tmp_path / "stored"), losses(tmp_path / "inplace")
    assert len(stored) >= 10
    assert stored[0] != stored[-1]
    np.testing.assert_allclose(stored, inplace, rtol=0, atol=1e-4)


def test_r_precision_rises(model, tmp_path):
    rows = records(120, longest=2), renamed(records(40, seed=1, longest=2))
    data, evaluation = (
        CorpusSettings((str(write_csv(tmp_path / f"{number}.csv", some)),)) for number, some in enumerate(rows)
    )
    job = Job(data, str(tmp_path / "run"), None, evaluation, "similarity", "1", model_named=True, tensorboard=False)
    report = finetune(job, model, replace(SETTINGS, epochs=15, learning_rate=5e-3))
    found = rrps(tmp_path / "run")
    assert report.metrics == {"rrp": max(found)}
    assert report.metrics["rrp"] > found[0] + 0.1
    assert report.classes == []
    assert "an embedding" in (tmp_path / "run" / "README.md").read_text()
    assert "pipeline_tag: sentence-similarity" in (tmp_path / "run" / "README.md").read_text()


def test_patience_counts_evaluations_without_a_better_r_precision(fit, tmp_path):
    fit(tmp_path / "run", replace(SETTINGS, epochs=9, patience=2, learning_rate=0.0))
    assert len(rrps(tmp_path / "run")) == 3


@pytest.mark.parametrize("cut", ["0", "2"])
@pytest.mark.parametrize("similarity", [TRIPLET, CONTRASTIVE], ids=["skip", "linear"])
def test_a_run_gives_the_vectors_it_was_judged_by(fit, test, store, tmp_path, cut, similarity):
    where = {"cut": cut, "store": None} if cut == "0" else {}
    report = fit(tmp_path / "run", replace(SETTINGS, task=similarity), **where)
    whole = score(test, tmp_path / "run", tmp_path / "whole.parquet")
    assert whole.metrics == pytest.approx(report.metrics, abs=1e-6)
    assert vectors(tmp_path / "whole.parquet").shape == (30, similarity.embedding.size or 32)
    if cut != "0":
        hits = score(test, tmp_path / "run", tmp_path / "hits.parquet", store)
        assert (hits.hits, hits.misses) == (30, 0)
        assert hits.metrics == pytest.approx(report.metrics, abs=1e-6)
        np.testing.assert_allclose(vectors(tmp_path / "hits.parquet"), vectors(tmp_path / "whole.parquet"), atol=1e-5)


@pytest.mark.parametrize("kind", ["lora", "bottleneck"])
def test_adapters_learn_an_embedding_too(fit, test, tmp_path, kind):
    if kind == "lora":
        pytest.importorskip("peft")
    report = fit(tmp_path / "run", replace(SETTINGS, adapter=AdapterSettings(kind, rank=4, save="apart")))
    whole = score(test, tmp_path / "run", tmp_path / "whole.parquet")
    assert whole.metrics == pytest.approx(report.metrics, abs=1e-6)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_an_adapter_kept_apart_makes_of_the_encoder_the_runs_own(fit, tmp_path, tiny_bert):
    peft = pytest.importorskip("peft")
    fit(tmp_path / "run", replace(SETTINGS, learning_rate=2e-2, adapter=AdapterSettings("lora", rank=4, save="apart")))
    plain, merged = (transformers.AutoModel.from_pretrained(place).eval() for place in (tiny_bert, tmp_path / "run"))
    ids = torch.tensor([[2, 7, 8, 9, 3]])
    with torch.no_grad():
        before, expected = plain(ids).last_hidden_state, merged(ids).last_hidden_state
        adapted = peft.PeftModel.from_pretrained(plain, tmp_path / "run" / "adapter").eval()
        torch.testing.assert_close(adapted(ids).last_hidden_state, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(before, expected, atol=1e-2)


@pytest.mark.parametrize("saves", [pytest.param(1, marks=pytest.mark.long), 3])
def test_a_resumed_run_is_the_undisturbed_one(fit, tmp_path, saves):
    settings = replace(SETTINGS, save_steps=2, accumulation=2)
    fit(tmp_path / "whole", settings)
    with stopped_after(saves):
        fit(tmp_path / "parts", settings)
    other = replace(settings, task=replace(TRIPLET, margin=0.4))
    with pytest.raises(UsageError, match=r"similarity was .*0\.5.*0\.4"):
        fit(tmp_path / "parts", other, resume=True)
    fit(tmp_path / "parts", settings, resume=True)
    for file in ("metrics.jsonl", "model.safetensors", "2_Dense/model.safetensors"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "parts" / file).read_bytes(), file


def test_windows_serve_groups_that_meet_in_them_and_are_refused_where_they_do_not(train, model, tmp_path):
    packed = PrecomputeSettings(("2",), "float32", batch_tokens=80, segment_bytes=20_000, codec="lz4")
    precompute(train, str(tmp_path / "packed"), model, packed)
    job = Job(train, str(tmp_path / "run"), str(tmp_path / "packed"), train, task="similarity", tensorboard=False)
    report = finetune(job, ModelSettings(), replace(SETTINGS, memory=60_000))
    assert len(rrps(tmp_path / "run")) == 2
    assert report.samples == 60
    many = [{**row, "label": str(number % 30)} for number, row in enumerate(records(60))]
    scattered = replace(train, source=(str(write_csv(tmp_path / "many.csv", many)),))
    with pytest.raises(
        UsageError, match=r"read in windows of 12,000 bytes, .*would share a batch with another .*--in-memory"
    ):
        finetune(replace(job, data=scattered, overwrite=True), ModelSettings(), replace(SETTINGS, memory=12_000))
    held = replace(SETTINGS, in_memory=True)
    finetune(replace(job, data=scattered, evaluation=None, overwrite=True), ModelSettings(), held)


def test_several_heads_are_what_each_would_be_alone(fit, train, test, store, tmp_path):
    shared = replace(SETTINGS, order_seed=4)
    asked = [
        HeadSettings("skip", shared),
        HeadSettings("linear", replace(shared, seed=2, task=replace(CONTRASTIVE, group_samples=3))),
    ]
    job = Job(train, str(tmp_path / "runs"), store, test, task="similarity", tensorboard=False)
    finetune_heads(job, ModelSettings(), asked)
    for head in asked:
        fit(tmp_path / head.name, head.training)
        for file in ("metrics.jsonl", "2_Dense/model.safetensors"):
            assert (tmp_path / head.name / file).read_bytes() == (tmp_path / "runs" / head.name / file).read_bytes()
    columns = [replace(head, label_column=name) for head, name in zip(asked, ("label", "text"), strict=True)]
    with pytest.raises(UsageError, match="groups of one column, not of label, text"):
        finetune_heads(replace(job, overwrite=True), ModelSettings(), columns)


@pytest.mark.parametrize(
    ("settings", "changes", "message"),
    [
        ({"mixup": 0.2}, {}, "--mixup and --cutmix mix the labels"),
        ({"task": ClassificationSettings(class_weights="balanced")}, {}, "--class-weights: only --task text-class"),
        ({"metric": "accuracy"}, {}, "--metric accuracy is not known here; take one of rrp"),
        ({"task": SimilaritySettings(temperature=0.2)}, {}, "--temperature 0.2: --loss triplet has none"),
        (
            {"task": SimilaritySettings("supervised-contrastive", margin=0.2)},
            {},
            "--margin 0.2: --loss supervised-contrastive has none",
        ),
        ({"batch_size": 7}, {}, "--batch-size 7 leaves no room for two groups of up to 4 samples; give at least 8"),
        (
            {"task": replace(TRIPLET, embedding=EmbeddingSettings(size=8))},
            {},
            "--embedding-size 8.*--embedding linear",
        ),
        ({}, {"task": "text-classification"}, "--group-samples: only --task similarity takes it"),
        (
            {"task": SimilaritySettings("supervised-contrastive", embedding=LINEAR)},
            {"task": "text-classification"},
            "--loss, --embedding, --embedding-size: only --task similarity",
        ),
        ({}, {"task": "image-classification"}, "takes texts; use --task text-classification"),
    ],
)
def test_options_without_effect_are_refused(fit, tmp_path, settings, changes, message):
    with pytest.raises(UsageError, match=message):
        fit(tmp_path / "run", replace(SETTINGS, **settings), **changes)
    assert not (tmp_path / "run").exists()


def test_what_is_no_group_is_refused(fit, train, tmp_path, monkeypatch):
    lonely = [{**row, "label": str(number)} for number, row in enumerate(records(60))]
    data = replace(train, source=(str(write_csv(tmp_path / "lonely.csv", lonely)),))
    with pytest.raises(DataError, match="no two of the 60 samples have the same label"):
        finetune(Job(data, str(tmp_path / "run"), task="similarity", cut="2"), ModelSettings(), SETTINGS)
    with pytest.raises(DataError, match="--eval: no two of the 60 samples have the same label"):
        fit(tmp_path / "run", evaluation=data)
    several = replace(SETTINGS, task=ClassificationSettings(multi_label=True))
    with pytest.raises(
        UsageError, match="--multi-label: only --task text-classification or image-classification takes"
    ):
        finetune(Job(data, str(tmp_path / "run"), task="similarity", cut="2"), ModelSettings(), several)
    monkeypatch.setattr("recycle_cli.tasks.similarity.MOST_TO_COMPARE", 20)
    with pytest.raises(DataError, match=r"--eval holds 30 samples.*at most 20"):
        fit(tmp_path / "run")


def test_what_is_left_of_one_group_is_refused(train, model, tmp_path):
    rows = records(60)
    bio = replace(train, source=(str(write_csv(tmp_path / "bio.csv", [row for row in rows if row["label"] == "bio"])),))
    precompute(bio, str(tmp_path / "store"), model, PrecomputeSettings(("2",), "float32"))
    job = Job(train, str(tmp_path / "run"), str(tmp_path / "store"), task="similarity", tensorboard=False)
    with pytest.raises(DataError, match=r"all of the \d+ samples have the label 'bio', expected at least two groups"):
        finetune(job, ModelSettings(), replace(SETTINGS, on_missing="skip"))


@pytest.mark.parametrize("stored", [True, False])
def test_batches_without_another_group_are_refused(train, store, model, tmp_path, stored):
    """One group of nearly all samples, and another for the odd batch."""
    rows = [{**row, "label": "rare" if number < 4 else "usual"} for number, row in enumerate(records(60))]
    data = replace(train, source=(str(write_csv(tmp_path / "uneven.csv", rows)),))
    job = Job(data, str(tmp_path / "run"), store if stored else None, task="similarity", cut="2", model_named=True)
    with pytest.raises(
        UsageError, match=r"^\d+% of the samples would share a batch .*expected 90%; give a larger --batch-size"
    ):
        finetune(job, model, SETTINGS)
    assert not (tmp_path / "run").exists()
