"""LoRA on the head: few weights train, the RUN is an ordinary checkpoint again, the adapter alone can be kept."""

from dataclasses import replace

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file

from recycle_cli.errors import UsageError
from recycle_cli.models import load, split
from recycle_cli.models.adapters import attach, merge
from recycle_cli.models.adapters.lora import LowRank
from recycle_cli.settings import AdapterSettings, CorpusSettings, ModelSettings, PrecomputeSettings, TrainingSettings
from recycle_cli.verbs.finetune import Job, finetune
from recycle_cli.verbs.precompute import precompute
from tests.conftest import tiny_config
from tests.models.architectures import random_model
from tests.records import records, write_csv
from tests.trainings import losses, stopped_after

LORA = AdapterSettings("lora", rank=4, alpha=8, save="apart")
SETTINGS = TrainingSettings(epochs=2, batch_size=8, learning_rate=2e-2, adapter=LORA)


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
        job = Job(data, str(output), store, tensorboard=False)
        return finetune(replace(job, **changes), ModelSettings(), settings)

    return fit


@pytest.fixture
def adapted(make_tiny):
    loaded = load(str(make_tiny("model", tiny_config(), bare=True)), labels=["a", "b"])
    halves = split(loaded, ["2"], max_length=16, dtype="float32")
    halves.freeze("2")
    before = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    return loaded, halves, before, attach(loaded, halves, "2", LORA)


def test_only_the_updates_and_the_new_classifier_train(adapted):
    loaded, halves, _, trained = adapted
    assert {name.split(".")[0] for name in trained if ".recycle." not in name} == {"classifier"}
    updates = [name for name in trained if ".recycle." in name]
    assert updates
    assert not [name for name in updates if ".layer.0." in name or ".layer.1." in name]
    logits = halves.head_from("2")(torch.randn(2, 5, 32), torch.tensor([5, 3]))
    logits.sum().backward()
    for name, parameter in loaded.model.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None) == (name in trained), name


def gradients(halves, trained, rows):
    """The loss and every gradient of a step, at weights that matter."""
    for parameter in trained.values():
        parameter.grad = None
    loss = halves.head_from("2")(rows, torch.tensor([6, 4, 1])).square().sum()
    loss.backward()
    return {"loss": loss.detach(), **{name: parameter.grad for name, parameter in trained.items()}}


def test_our_way_through_a_layer_gives_what_pefts_own_gives(adapted):
    loaded, halves, _, trained = adapted
    loaded.model.double()
    with torch.no_grad():
        for parameter in trained.values():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    rows = torch.randn(3, 6, 32, dtype=torch.float64)
    ours = gradients(halves, trained, rows)
    layers = [module for module in loaded.model.modules() if isinstance(module, peft.tuners.lora.LoraLayer)]
    assert len(layers) == len([layer for layer in layers if "forward" in layer.__dict__]) == 13
    for layer in layers:
        del layer.__dict__["forward"]
    theirs = gradients(halves, trained, rows)
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value)


def test_the_stored_rows_take_no_gradient(adapted, monkeypatch):
    """The lowest layers have no input to hand a gradient on to: query, key and value of the first block."""
    _, halves, _, trained = adapted
    backward, handed_on = LowRank.backward, []

    def watched(ctx, gradient):
        found = backward(ctx, gradient)
        handed_on.append(found[0] is not None)
        return found

    monkeypatch.setattr(LowRank, "backward", staticmethod(watched))
    gradients(halves, trained, torch.randn(3, 6, 32))
    assert (handed_on.count(False), handed_on.count(True)) == (3, 10)


@pytest.mark.parametrize("autocast", [False, True])
def test_in_mixed_precision_and_with_dropout_peft_computes(make_tiny, autocast, monkeypatch):
    def never(*arguments):
        raise AssertionError("the weights' sum would be rounded")

    monkeypatch.setattr(LowRank, "apply", never)
    loaded = load(str(make_tiny("model", tiny_config(), bare=True)), labels=["a", "b"])
    halves = split(loaded, ["2"], max_length=16, dtype="float32")
    trained = attach(loaded, halves, "2", replace(LORA, dropout=0.0 if autocast else 0.1))
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        gradients(halves, trained, torch.randn(3, 6, 32))


def test_layers_are_chosen_by_the_ends_of_their_names(make_tiny):
    loaded = load(str(make_tiny("model", tiny_config(), bare=True)), labels=["a", "b"])
    halves = split(loaded, ["2"], max_length=16, dtype="float32")
    with pytest.raises(UsageError, match=r"--adapter-layers wquery: no layer's name ends so; .* end in query, key"):
        attach(loaded, halves, "2", replace(LORA, layers=("wquery",)))
    trained = attach(loaded, halves, "2", replace(LORA, layers=("self.query", "value")))
    adapted = {name.partition(".lora_")[0].rpartition(".")[2] for name in trained if ".recycle." in name}
    assert adapted == {"query", "value"}


@pytest.mark.parametrize("name", ["distilbert", "deberta-v2", "modernbert", "gpt2", "llama"])
def test_any_architecture_takes_updates_and_merges_them(name):
    loaded = random_model(name)
    halves = split(loaded, ["2"], max_length=16, dtype="float32")
    rows, lengths = torch.randn(3, 6, 32), torch.tensor([6, 4, 1])
    with torch.no_grad():
        before = halves.head(rows, lengths)
        trained = attach(loaded, halves, "2", LORA)
        torch.testing.assert_close(halves.head(rows, lengths), before)
        for parameter in trained.values():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        apart = halves.head(rows, lengths)
        merge(loaded.model)
        torch.testing.assert_close(halves.head(rows, lengths), apart, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(apart, before, atol=1e-3)


def test_merging_gives_back_the_same_names_and_the_same_logits(adapted):
    loaded, halves, before, trained = adapted
    with torch.no_grad():
        for parameter in trained.values():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    rows, lengths = torch.randn(3, 6, 32), torch.tensor([6, 4, 1])
    loaded.model.eval()
    with torch.no_grad():
        apart = halves.head_from("2")(rows, lengths)
        merge(loaded.model)
        merged = halves.head_from("2")(rows, lengths)
    assert loaded.model.state_dict().keys() == before.keys()
    torch.testing.assert_close(merged, apart, rtol=1e-4, atol=1e-5)
    changed = {name for name, value in loaded.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert not [name for name in changed if ".layer.0." in name or ".layer.1." in name or "embeddings" in name]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_a_run_with_an_adapter_is_an_ordinary_checkpoint_and_holds_the_adapter_apart(fit, tmp_path, tiny_bert):
    fit(tmp_path / "run")
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "run").eval()
    again = transformers.AutoModelForSequenceClassification.from_pretrained(
        tiny_bert, num_labels=plain.config.num_labels, ignore_mismatched_sizes=True
    )
    state = load_file(tmp_path / "run" / "model.safetensors")
    again.classifier.load_state_dict({"weight": state["classifier.weight"], "bias": state["classifier.bias"]})
    with_adapter = peft.PeftModel.from_pretrained(again, tmp_path / "run" / "adapter").eval()
    inputs = {"input_ids": torch.tensor([[2, 7, 8, 9, 3]]), "attention_mask": torch.ones(1, 5, dtype=torch.long)}
    with torch.no_grad():
        torch.testing.assert_close(with_adapter(**inputs).logits, plain(**inputs).logits, rtol=1e-4, atol=1e-4)


def test_training_with_an_adapter_lowers_the_loss(fit, tmp_path):
    fit(tmp_path / "run", replace(SETTINGS, epochs=12, learning_rate=1e-2))
    found = losses(tmp_path / "run")
    assert sum(found[-10:]) < 0.8 * sum(found[:10])


def test_an_interrupted_run_with_an_adapter_resumes_exactly(fit, tmp_path):
    fit(tmp_path / "whole")
    with stopped_after(1):
        fit(tmp_path / "parts")
    fit(tmp_path / "parts", resume=True)
    whole, parts = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


def test_a_head_without_a_pretrained_layer_cannot_be_adapted(make_tiny):
    loaded = load(str(make_tiny("model", tiny_config(), bare=True)), labels=["a", "b"])
    halves = split(loaded, ["100%"], max_length=16, dtype="float32")
    bare = replace(loaded, missing=frozenset(name for name, _ in loaded.model.named_parameters()))
    with pytest.raises(UsageError, match="at cut 4 the head has no pretrained layer"):
        attach(bare, halves, "4", LORA)
