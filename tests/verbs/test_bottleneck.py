"""Bottleneck adapters: behind the sublayers of any architecture, few weights train, and no RUN is silently wrong."""

import csv
import shutil
from dataclasses import replace

import pytest
import torch
import transformers

from recycle_cli.errors import StoreError, UsageError
from recycle_cli.keys import Sample
from recycle_cli.models import load, split
from recycle_cli.models.adapters import attach
from recycle_cli.models.adapters.bottleneck import NAME
from recycle_cli.settings import (
    AdapterSettings,
    CorpusSettings,
    ModelSettings,
    PrecomputeSettings,
    PredictSettings,
    TrainingSettings,
)
from recycle_cli.tasks import Classification
from recycle_cli.verbs.finetune import Job, finetune
from recycle_cli.verbs.precompute import precompute
from recycle_cli.verbs.predict import predict
from tests.conftest import WORDS, tiny_config
from tests.models.architectures import DECODERS, ENCODERS, each_kind, random_model
from tests.records import records, write_csv
from tests.trainings import log_of, stopped_after

APART = AdapterSettings("bottleneck", width=6, save="apart")
SETTINGS = TrainingSettings(epochs=3, batch_size=8, learning_rate=2e-2, adapter=APART)
PARTS = {
    "opt": {"self_attn", "fc2"},
    "bert": {"attention", "output"},
    "gpt2": {"attn", "mlp"},
    "t5": {"0", "1"},
    "squeezebert": {"post_attention", "output"},
}
"""What the sublayers are called in some of them."""


def adapted(loaded, cut="2"):
    halves = split(loaded, [cut], max_length=16, dtype="float32")
    halves.freeze(cut)
    return halves, attach(loaded, halves, cut, APART)


def disturb(trained):
    """Weights that matter: the adapters begin as the identity."""
    with torch.no_grad():
        for parameter in trained.values():
            parameter.add_(torch.randn_like(parameter) * 0.2)


def batch(halves):
    texts = [" ".join(WORDS[:9]), " ".join(WORDS[3:7])]
    return halves.collate(halves.prepare([Sample("0", {"text": text}) for text in texts]))


@pytest.mark.parametrize("name", each_kind([*ENCODERS, *DECODERS]))
def test_every_remaining_block_of_any_architecture_is_adapted(name):
    loaded = random_model(name)
    untouched = split(loaded, ["2"], max_length=16, dtype="float32")
    inputs = batch(untouched)
    with torch.no_grad():
        before = untouched.full(inputs)
        halves, trained = adapted(loaded)
        torch.testing.assert_close(halves.full(inputs), before)
        disturb(trained)
        lengths = inputs["attention_mask"].sum(1)
        after = halves.full(inputs)
        torch.testing.assert_close(halves.head(halves.trunk(inputs)["2"], lengths), after, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(after, before, atol=1e-3)
    carriers = {one.rpartition(f".{NAME}")[0] for one in trained}
    assert len(carriers) == 4, carriers
    if name in PARTS:
        assert {one.rpartition(".")[2] for one in carriers} == PARTS[name]


def test_frozen_weights_get_no_gradient(make_tiny):
    loaded = load(str(make_tiny("model", tiny_config(), bare=True)), labels=["a", "b"])
    halves, trained = adapted(loaded)
    halves.model.train()
    halves.head(torch.randn(2, 5, 32), torch.tensor([5, 3])).sum().backward()
    for name, parameter in loaded.model.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None) == (name in trained), name
    assert {name.split(".")[0] for name in trained if NAME not in name} == {"classifier"}
    assert sum(parameter.numel() for parameter in trained.values()) < 0.2 * sum(
        parameter.numel() for _, parameter in halves.head_parameters("2")
    )


def test_without_a_block_there_is_nothing_to_adapt():
    with pytest.raises(UsageError, match="bottleneck: at cut 4 the head has no pretrained layer to adapt"):
        adapted(random_model("bert"), "4")


# From finetune to predict


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return CorpusSettings((str(write_csv(tmp_path_factory.mktemp("data") / "train.csv", records(40))),))


@pytest.fixture(scope="module")
def store(tmp_path_factory, data, tiny_bert):
    path = str(tmp_path_factory.mktemp("store") / "store")
    precompute(data, path, ModelSettings(str(tiny_bert), None, 16), PrecomputeSettings(("2",), "float32"))
    return path


@pytest.fixture
def fit(data, store):
    def fit(output, settings=SETTINGS, **changes):
        job = Job(data, str(output), store, data, tensorboard=False)
        return finetune(replace(job, **changes), ModelSettings(), settings)

    return fit


@pytest.fixture(scope="module")
def run(data, store, tmp_path_factory):
    """A finished RUN, its report, and the logits of the model as it was trained."""
    output, logits = tmp_path_factory.mktemp("run") / "run", []
    figures = Classification.figures

    def keep(task, found, targets):
        logits.append(found)
        return figures(task, found, targets)

    Classification.figures = keep
    try:
        report = finetune(Job(data, str(output), store, data, tensorboard=False), ModelSettings(), SETTINGS)
    finally:
        Classification.figures = figures
    return output, report, logits[report.best_epoch - 1]


@pytest.mark.parametrize("stored", [True, False])
def test_predict_puts_the_adapters_back(run, data, store, tmp_path, stored):
    output, report, logits = run
    out = tmp_path / "out.csv"
    found = predict(data, str(output), store if stored else None, str(out), ModelSettings(), PredictSettings())
    assert found.metrics == pytest.approx(report.metrics, abs=1e-4)
    rows = list(csv.DictReader(out.read_text(encoding="utf-8").splitlines()))
    scores = torch.tensor([[float(row[f"score_{name}"]) for name in report.classes] for row in rows])
    torch.testing.assert_close(scores, torch.softmax(logits, 1), rtol=0, atol=1e-4)


def test_no_other_loader_takes_the_run_for_a_whole_model(run, tmp_path):
    output, _, _ = run
    with pytest.raises((OSError, ValueError)):
        transformers.AutoModelForSequenceClassification.from_pretrained(output)
    with pytest.raises((OSError, ValueError)):
        transformers.pipeline("text-classification", str(output))
    base = transformers.AutoModelForSequenceClassification.from_pretrained(output / "base")
    assert base(torch.tensor([[2, 7, 3]])).logits.isnan().all()
    card = (output / "README.md").read_text()
    assert "no ordinary checkpoint" in card
    assert "library_name: recycle\n" in card
    assert "It is an ordinary checkpoint" not in card


def test_a_damaged_adapter_is_named(run, data, tmp_path):
    shutil.copytree(run[0], tmp_path / "run")
    (tmp_path / "run" / "adapter" / "bottleneck.safetensors").write_bytes(b"no tensors")
    with pytest.raises(StoreError, match=r"bottleneck\.safetensors is damaged"):
        predict(data, str(tmp_path / "run"), None, str(tmp_path / "o.csv"), ModelSettings(), PredictSettings())


def test_it_learns(fit, tmp_path):
    fit(tmp_path / "run", replace(SETTINGS, epochs=12, learning_rate=5e-3, adapter=replace(APART, width=24)))
    losses = [line["evaluation"]["loss"] for line in log_of(tmp_path / "run") if "evaluation" in line]
    assert losses[-1] < 0.92 * losses[0], losses


def test_interrupted_and_resumed_it_is_the_undisturbed_run(run, fit, tmp_path):
    with stopped_after(1):
        fit(tmp_path / "parts")
    fit(tmp_path / "parts", resume=True)
    for file in ("metrics.jsonl", "adapter/bottleneck.safetensors"):
        assert (tmp_path / "parts" / file).read_bytes() == (run[0] / file).read_bytes()


def test_merging_is_refused_before_anything_is_done(fit, tmp_path):
    with pytest.raises(UsageError, match="cannot be merged into an ordinary checkpoint; add --adapter-save apart"):
        fit(tmp_path / "run", replace(SETTINGS, adapter=replace(APART, save="merged")))
    assert not (tmp_path / "run").exists()
