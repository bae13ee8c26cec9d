"""Training from a store is training: the losses of the whole model in place, and of a loop written by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers

from recycle_cli.batches import shuffled
from recycle_cli.errors import UsageError
from recycle_cli.settings import (
    ClassificationSettings,
    CorpusSettings,
    ModelSettings,
    PrecomputeSettings,
    TrainingSettings,
)
from recycle_cli.training.learning_rate import learning_rate
from recycle_cli.verbs.finetune import Job, finetune
from recycle_cli.verbs.precompute import precompute
from tests.conftest import save_tiny, tiny_config
from tests.records import TOPICS, records, write_csv
from tests.trainings import log_of, losses

RECORDS = records(50)
NAMES = sorted(TOPICS)
SETTINGS = TrainingSettings(epochs=2, batch_size=8, learning_rate=1e-3)
BALANCED = ClassificationSettings(class_weights="balanced")
STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
STILL_GPT2 = {"embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return CorpusSettings((str(write_csv(tmp_path_factory.mktemp("data") / "train.csv", RECORDS)),))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A BERT without dropout."""
    return ModelSettings(str(save_tiny(tmp_path_factory.mktemp("still"), tiny_config(**STILL), bare=True)), None, 16)


def run(data, output, model, settings, *, store=None, cut=None):
    job = Job(data, str(output), store and str(store), cut=cut, model_named=True, tensorboard=False)
    return finetune(job, model, settings)


def by_hand(model, settings, *, weights=None, accumulation=1):
    """Losses and final weights of an ordinary PyTorch loop over the same batches, with nothing of ours but those."""
    torch.manual_seed(settings.seed)
    network = transformers.AutoModelForSequenceClassification.from_pretrained(model.name, num_labels=len(NAMES)).train()
    tokenizer = transformers.AutoTokenizer.from_pretrained(model.name)
    encoded = [tokenizer(one["text"], truncation=True, max_length=16) for one in RECORDS]
    targets = torch.tensor([NAMES.index(one["label"]) for one in RECORDS])
    lengths = np.array([len(one["input_ids"]) for one in encoded])
    decayed = [weight for weight in network.parameters() if weight.dim() > 1]
    others = [weight for weight in network.parameters() if weight.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}]
    if settings.optimizer == "sgd":
        optimizer = torch.optim.SGD(groups, lr=settings.learning_rate, momentum=settings.momentum)
    else:
        optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate)
    epochs = [shuffled(lengths, settings.batch_size, settings.seed, epoch) for epoch in range(settings.epochs)]
    merged = [
        np.concatenate(batches[at : at + accumulation])
        for batches in epochs
        for at in range(0, len(batches), accumulation)
    ]
    found = []
    for step, members in enumerate(merged):
        batch = tokenizer.pad({"input_ids": [encoded[at]["input_ids"] for at in members]}, return_tensors="pt")
        logits = network(**batch).logits
        loss = torch.nn.functional.cross_entropy(logits, targets[members], weight=weights)
        optimizer.param_groups[0]["lr"] = optimizer.param_groups[1]["lr"] = learning_rate(step, len(merged), settings)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), settings.max_grad_norm)
        optimizer.step()
        found.append(loss.item())
    return found


MODELS = {
    "bert": tiny_config(**STILL),
    "bert-dropout": tiny_config(),
    "gpt2": tiny_config("gpt2", **STILL_GPT2),
    "gpt2-dropout": tiny_config("gpt2"),
}
OFTEN = {("bert", "1"), ("bert-dropout", "50%"), ("gpt2", "100%"), ("gpt2-dropout", "1"), ("bert-dropout", "100%")}
"""Each model and each cut."""


@pytest.mark.parametrize(
    ("name", "cut"),
    [
        pytest.param(name, cut, marks=() if (name, cut) in OFTEN else pytest.mark.long)
        for name in MODELS
        for cut in ("1", "50%", "100%")
    ],
)
def test_losses_from_the_store_are_those_with_the_frozen_trunk_in_place(data, make_tiny, tmp_path, name, cut):
    model = ModelSettings(str(make_tiny("model", MODELS[name], bare=True)), None, 16)
    precompute(data, str(tmp_path / "store"), model, PrecomputeSettings((cut,), "float32"))
    run(data, tmp_path / "stored", model, SETTINGS, store=tmp_path / "store")
    run(data, tmp_path / "inplace", model, SETTINGS, cut=cut)
    stored, inplace = losses(tmp_path / "stored"), losses(tmp_path / "inplace")
    assert len(stored) == 14
    assert stored[0] != stored[-1]
    np.testing.assert_allclose(stored, inplace, rtol=0, atol=1e-5)


def test_smaller_dtypes_stay_near(data, model, tmp_path):
    run(data, tmp_path / "inplace", model, SETTINGS, cut="2")
    for dtype, near in {"float16": 0.01, "bfloat16": 0.05, "int8": 0.2, "int4": 0.6}.items():
        store, stored = tmp_path / f"{dtype}.zarr", tmp_path / dtype
        precompute(data, str(store), model, PrecomputeSettings(("2",), dtype))
        run(data, stored, model, SETTINGS, store=store)
        np.testing.assert_allclose(losses(stored), losses(tmp_path / "inplace"), rtol=0, atol=near, err_msg=dtype)


@pytest.mark.parametrize(
    "optimizer",
    [{}, {"optimizer": "sgd", "learning_rate": 0.1, "weight_decay": 1e-2}, {"optimizer": "sgd", "momentum": 0.0}],
)
def test_full_finetuning_is_an_ordinary_loop(data, model, tmp_path, optimizer):
    settings = replace(SETTINGS, **{"learning_rate": 1e-4, **optimizer})
    run(data, tmp_path / "run", model, settings, cut="0")
    np.testing.assert_allclose(losses(tmp_path / "run"), by_hand(model, settings), rtol=0, atol=1e-4)


def test_accumulated_batches_are_one_larger_batch(data, model, tmp_path):
    """50 records in batches of 8 end with 2: the mean is over samples, not over batches."""
    settings = replace(SETTINGS, learning_rate=1e-4, accumulation=3)
    run(data, tmp_path / "run", model, settings, cut="0")
    expected = by_hand(model, settings, accumulation=3)
    assert [line["samples"] for line in log_of(tmp_path / "run")].count(24) >= 2
    np.testing.assert_allclose(losses(tmp_path / "run"), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_class_weights_are_those_of_the_frequencies(data, model, tmp_path, accumulation):
    labels = [one["label"] for one in RECORDS]
    weights = torch.tensor([len(labels) / (3 * labels.count(name)) for name in NAMES])
    settings = replace(SETTINGS, learning_rate=1e-4, task=BALANCED, accumulation=accumulation)
    run(data, tmp_path / "run", model, settings, cut="0")
    expected = by_hand(model, settings, weights=weights, accumulation=accumulation)
    np.testing.assert_allclose(losses(tmp_path / "run"), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("cut", ["2", "100%"])
def test_only_the_head_learns(data, model, tmp_path, cut):
    run(data, tmp_path / "run", model, SETTINGS, cut=cut)
    before = transformers.AutoModelForSequenceClassification.from_pretrained(model.name, num_labels=3).state_dict()
    after = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "run").state_dict()
    blocks = 2 if cut == "2" else 4
    trunk = ("bert.embeddings", *(f"bert.encoder.layer.{block}." for block in range(blocks)))
    for name, weight in after.items():
        assert torch.equal(weight, before[name]) == name.startswith(trunk), name


def test_an_evaluation_moves_its_batches_to_the_device(data, model, tmp_path, monkeypatch):
    """What is moved in inference mode is a copy that does not count how often it is written into."""

    def moved(batch, device):
        return {name: tensor.clone() for name, tensor in batch.items()}

    monkeypatch.setattr("recycle_cli.training.evaluation.to_device", moved)
    monkeypatch.setattr("recycle_cli.training.loop.to_device", moved)
    precompute(data, str(tmp_path / "store"), model, PrecomputeSettings(("2",), "float32"))
    job = Job(data, str(tmp_path / "run"), str(tmp_path / "store"), data, tensorboard=False)
    assert finetune(job, ModelSettings(), SETTINGS).metrics["accuracy"] > 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"optimizer": "sgd"}, "--optimizer sgd: name the --learning-rate"),
        ({"momentum": 0.5}, "--momentum 0.5: only --optimizer sgd has one"),
    ],
)
def test_options_of_the_other_optimizer_are_refused(data, model, tmp_path, options, said):
    with pytest.raises(UsageError, match=said):
        run(data, tmp_path / "run", model, TrainingSettings(**options), cut="2")


def test_the_log_has_one_line_a_step_and_the_report_one_entry_an_epoch(data, model, tmp_path):
    report = run(data, tmp_path / "run", model, SETTINGS, cut="2")
    lines = log_of(tmp_path / "run")
    assert [line["step"] for line in lines] == list(range(1, 15))
    assert [line["epoch"] for line in lines] == [1] * 7 + [2] * 7
    assert [(one["step"], one["epoch"]) for one in report.epochs] == [(7, 1), (14, 2)]
    for number, epoch in enumerate(report.epochs):
        steps = lines[7 * number : 7 * number + 7]
        mean = sum(line["loss"] * line["samples"] for line in steps) / sum(line["samples"] for line in steps)
        assert epoch["epoch_loss"] == pytest.approx(mean)
    assert sum(line["samples"] for line in lines) == 100
    assert lines[0]["learning_rate"] == SETTINGS.learning_rate
    assert lines[-1]["learning_rate"] == pytest.approx(SETTINGS.learning_rate / 13)


def test_the_schedule_rises_and_falls():
    settings = TrainingSettings(learning_rate=1.0, warmup_share=0.1)
    rates = [learning_rate(step, 100, settings) for step in range(100)]
    assert rates[:10] == pytest.approx([step / 10 for step in range(1, 11)])
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[-1] == pytest.approx(1 / 90)
    assert learning_rate(0, 1, replace(settings, warmup_share=0.0)) == 1.0


def test_the_same_seed_gives_the_same_run_and_another_seed_another(data, tiny_bert, tmp_path):
    model = ModelSettings(str(tiny_bert), None, 16)
    for name, seed in [("a", 0), ("b", 0), ("c", 1)]:
        run(data, tmp_path / name, model, replace(SETTINGS, seed=seed), cut="2")
    one, two, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert one == two
    assert one != other
