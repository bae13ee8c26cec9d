"""The fingerprint follows what decides the rows, and nothing else."""

import json
from pathlib import Path

import pytest
import torch
import transformers

from recycle_cli.models import Loaded, SplitModel, load, split
from recycle_cli.models.identity import architecture_of, tokenizer_digest
from recycle_cli.recipe import Recipe
from tests.conftest import tiny_config, tiny_tokenizer
from tests.models.architectures import DECODERS, ENCODERS, each_kind, random_model


def cut_at_two(loaded: Loaded) -> SplitModel:
    return split(loaded, ["2"], max_length=32, dtype="float16")


def recipe_of(name: object) -> Recipe:
    return cut_at_two(load(str(name), labels=None)).recipe


def saved(loaded: Loaded, folder: Path) -> Path:
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return folder


def disturb(model: SplitModel, name: str) -> None:
    with torch.no_grad():
        dict(model.model.named_parameters())[name].view(-1)[0] += 1e-3


@pytest.mark.parametrize("model_type", each_kind(name for name in [*ENCODERS, *DECODERS] if name != "t5"))
def test_a_trained_head_saved_and_loaded_keeps_the_fingerprint(model_type, tmp_path):
    """Used and saved: the tokenizer's state of the last call, and the padding token given to it, change nothing."""
    loaded = load(str(saved(random_model(model_type), tmp_path / "model")), labels=None)
    model = cut_at_two(loaded)
    with torch.no_grad():
        for _, parameter in model.head_parameters("2"):
            parameter += 0.1
    loaded.tokenizer(["some words to cut"], truncation=True, max_length=3, padding="max_length")
    again = recipe_of(saved(loaded, tmp_path / "run"))
    assert model.recipe.difference(again) is None
    assert model.recipe.fingerprint == again.fingerprint


def test_minilm_saved_and_loaded_keeps_the_fingerprint(minilm, tmp_path):
    loaded = load(minilm, labels=["a", "b", "c"], seed=5)
    model = cut_at_two(loaded)
    assert model.recipe.fingerprint == recipe_of(saved(loaded, tmp_path)).fingerprint == recipe_of(minilm).fingerprint


def test_fingerprint_does_not_depend_on_the_task_layer(tiny_bert):
    assert recipe_of(tiny_bert) == cut_at_two(load(str(tiny_bert), labels=list("abcde"), seed=1)).recipe


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("bert.embeddings.word_embeddings.weight", True),
        ("bert.embeddings.LayerNorm.bias", True),
        ("bert.encoder.layer.0.attention.self.query.weight", True),
        ("bert.encoder.layer.1.output.LayerNorm.bias", True),
        ("bert.encoder.layer.2.attention.self.query.weight", False),
        ("bert.pooler.dense.weight", False),
        ("classifier.bias", False),
    ],
)
def test_one_weight(tiny_bert, name, changes):
    loaded = load(str(tiny_bert), labels=None)
    before = cut_at_two(loaded)
    disturb(before, name)
    assert (before.recipe.difference(cut_at_two(loaded).recipe) is not None) is changes


def test_weights_used_without_a_call_belong_to_the_trunk():
    """DeBERTa-v2 reads its table of relative positions as a tensor; RoFormer's positions take no gradient."""
    trunk = dict(cut_at_two(random_model("deberta-v2")).trunk_parameters("2"))
    assert {"deberta.encoder.rel_embeddings.weight", "deberta.encoder.conv.conv.weight"} <= set(trunk)
    trunk = dict(cut_at_two(random_model("roformer")).trunk_parameters("2"))
    assert "roformer.encoder.embed_positions.weight" in trunk


def test_a_deeper_cut_has_another_digest(tiny_bert):
    cuts = split(load(str(tiny_bert), labels=None), ["1", "2", "4"], max_length=32, dtype="float16").recipe.cuts
    assert len(set(cuts.values())) == 3
    assert cuts["2"] == recipe_of(tiny_bert).cuts["2"]


def test_every_setting_that_matters_is_named(tiny_bert, make_tiny):
    loaded = load(str(tiny_bert), labels=None)
    here = cut_at_two(loaded).recipe
    longer = split(loaded, ["2"], max_length=33, dtype="float16").recipe
    assert "max_length: 32 in the store, 33 asked for" in str(here.difference(longer))
    floats = split(loaded, ["2"], max_length=32, dtype="float32").recipe
    assert "dtype" in str(here.difference(floats))
    other = recipe_of(make_tiny("relu", tiny_config(hidden_act="relu"), bare=True))
    assert here.difference(other) == "architecture.hidden_act: gelu in the store, relu asked for"


def test_settings_that_do_not_matter_have_no_part(tiny_bert, make_tiny):
    other = recipe_of(
        make_tiny(
            "dropout",
            tiny_config(hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.3, classifier_dropout=0.2),
            bare=True,
        )
    )
    assert recipe_of(tiny_bert) == other


def test_another_tokenizer_is_another_recipe(tiny_bert, tmp_path):
    loaded = load(str(tiny_bert), labels=None)
    rules = json.loads(loaded.tokenizer.backend_tokenizer.to_str())
    rules["normalizer"] = None
    loaded.tokenizer.backend_tokenizer.normalizer = type(loaded.tokenizer.backend_tokenizer.normalizer)()
    cased = transformers.PreTrainedTokenizerFast(
        tokenizer_object=loaded.tokenizer.backend_tokenizer.from_str(json.dumps(rules)),
        pad_token="[PAD]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
    difference = cut_at_two(loaded).recipe.difference(cut_at_two(Loaded("cased", loaded.model, cased)).recipe)
    assert difference is not None
    assert difference.startswith("preprocessor")


@pytest.mark.parametrize("setting", ["truncation_side", "split_special_tokens"])
def test_what_a_tokenizer_does_is_part_of_the_recipe(tiny_bert, setting, tmp_path):
    """Settings that the rules do not hold; the default ones leave the digest as it always was."""
    loaded = load(str(tiny_bert), labels=None)
    before = cut_at_two(loaded).recipe
    setattr(loaded.tokenizer, setting, "left" if setting == "truncation_side" else True)
    after = cut_at_two(Loaded("other", loaded.model, loaded.tokenizer)).recipe
    assert "preprocessor" in str(before.difference(after))


def test_what_a_tokenizers_own_code_does_is_part_of_the_recipe(tiny_bert):
    class Hasty(transformers.PreTrainedTokenizerFast):
        def __call__(self, text, *args, **kwargs):
            return super().__call__([one.replace("new", "old") for one in text], *args, **kwargs)

    loaded = load(str(tiny_bert), labels=None)
    before = cut_at_two(loaded).recipe
    loaded.tokenizer.__class__ = Hasty
    assert "preprocessor" in str(before.difference(cut_at_two(loaded).recipe))


def test_slow_tokenizers_are_told_apart_by_what_they_do(tmp_path):
    """By class and vocabulary alone if those say all; by merges, normalisation and the like if there are files."""
    assert tokenizer_digest(transformers.ByT5Tokenizer(), ["input_ids"]) == "d55c8ac633af6e30e9df1600142511df"
    vocabulary, merges = tmp_path / "vocab.txt", tmp_path / "bpe.codes"
    vocabulary.write_text("".join(f"{token} 1\n" for token in ("a@@", "b", "ab", "c", "bc", "@USER")))
    digests = set()
    for order in ("a b</w> 1\nb c</w> 1\n", "b c</w> 1\na b</w> 1\n", "b c</w> 1\n"):
        for normalization in (False, True):
            merges.write_text(order)
            tokenizer = transformers.BertweetTokenizer(str(vocabulary), str(merges), normalization=normalization)
            digests.add(tokenizer_digest(tokenizer, ["input_ids"]))
    assert len(digests) == 6


@pytest.mark.parametrize(
    ("field", "value", "kept"),
    [
        ("token_dropout", True, True),
        ("dropout_kind", "variational", True),
        ("token_dropout", False, False),
        ("hidden_dropout_prob", 0.3, False),
        ("attn_pdrop", 0, False),
        ("layerdrop", 0.1, False),
    ],
)
def test_a_field_named_after_dropout_is_left_out_only_if_it_is_a_rate(field, value, kept):
    assert (field in architecture_of({"hidden_size": 32, field: value})) is kept


class GoingBy(transformers.BertModel):
    """A BERT that goes by fields which mean nothing to others: their names say generation, labels or dropout."""

    def forward(self, input_ids, inputs_embeds=None, **others):
        words = self.embeddings.word_embeddings(input_ids)
        words = words * getattr(self.config, "classifier_bias", 1.0) + words.abs() * getattr(
            self.config, "dropout_shift", 0.0
        )
        if getattr(self.config, "summary_type", "") == "sharp":
            words = words.sign()
        return super().forward(inputs_embeds=words, **others)


class Going(transformers.BertForSequenceClassification):
    def __init__(self, config):
        super().__init__(config)
        self.bert = GoingBy(config)
        self.post_init()


@pytest.mark.parametrize(
    ("fields", "counted"),
    [
        ({"classifier_bias": 2.0, "prefix": "a"}, {"classifier_bias": 2.0}),
        ({"dropout_shift": 0.5, "hidden_dropout_prob": 0.3}, {"dropout_shift": 0.5}),
        ({"summary_type": "sharp", "initializer_range": 0.2}, {"summary_type": "sharp"}),
        ({"classifier_bias": 2.0, "summary_type": "sharp"}, {"summary_type": "sharp"}),
        ({"prefix": "a", "num_beams": 3, "bos_token_id": 4, "classifier_dropout": 0.5}, {}),
    ],
)
def test_a_field_that_the_model_goes_by_counts_whatever_its_name(fields, counted):
    config = tiny_config(num_labels=3, **fields)
    model = cut_at_two(Loaded("going", Going(config).eval(), tiny_tokenizer()))
    assert model.recipe.architecture == architecture_of(config.to_dict()) | counted


def test_a_field_is_not_left_out_for_want_of_memory(monkeypatch):
    loaded = Loaded("going", Going(tiny_config(num_labels=3, classifier_bias=3.0)).eval(), tiny_tokenizer())

    def full(self, config):
        raise MemoryError

    monkeypatch.setattr(GoingBy, "__init__", full)
    with pytest.raises(MemoryError):
        cut_at_two(loaded)


def test_recipe_goes_through_json(tiny_bert):
    recipe = recipe_of(tiny_bert)
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))).fingerprint == recipe.fingerprint


def test_a_tokenizer_without_padding_is_given_one(tmp_path):
    loaded = random_model("llama", pad_token_id=None)
    bare = tiny_tokenizer(eos_token="[SEP]")
    given = Loaded("llama", loaded.model, bare)
    model = cut_at_two(given)
    assert bare.pad_token == "[SEP]"
    assert model.model.config.pad_token_id == 3
    assert recipe_of(saved(given, tmp_path)).fingerprint == model.recipe.fingerprint


@pytest.mark.parametrize("model_type", [*ENCODERS, *DECODERS])
def test_the_recipe_names_a_task_only_where_the_rows_depend_on_it(model_type):
    """Longformer's classifier gives the first token global attention; every other trunk serves every task."""
    extra = {"through": "LongformerForSequenceClassification"} if model_type == "longformer" else {}
    model = cut_at_two(random_model(model_type))
    assert model.recipe.extra == extra
    assert model.recipe.architecture == architecture_of(model.model.config.to_dict())
