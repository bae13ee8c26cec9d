"""A text's rows and outputs are those of the text alone, at every length that the model may be fed."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from recycle_cli.errors import ModelError
from recycle_cli.models import Loaded, split
from recycle_cli.models.text.block_kinds import fewest, latest
from recycle_cli.models.text.lengths import thresholds
from recycle_cli.models.text.split import ownership, proved_states, uncut
from tests.conftest import WORDS, tiny_config, tiny_tokenizer
from tests.models.architectures import of_config, random_model, stirred

LONGROPE = {
    "original_max_position_embeddings": 20,
    "rope_parameters": {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0] * 4,
        "long_factor": [4.0] * 4,
    },
}


def loaded_of(model_type: str, **fields: Any) -> Loaded:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = stirred(of_config(tiny_config(model_type, num_labels=3, **fields)))
    return Loaded(model_type, model.eval(), tiny_tokenizer())


def error(loaded: Loaded, cut: str, lengths: list[int], longest: int) -> float:
    """How far head after trunk, of texts of these lengths together, is from the plain model, of each text alone."""
    model = split(loaded, [cut], max_length=longest, dtype="float32")
    tokens = torch.randint(5, len(WORDS), (len(lengths), max(lengths)), generator=torch.Generator().manual_seed(3))
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    with torch.no_grad():
        alone = [loaded.model(tokens[row : row + 1, :length])[0] for row, length in enumerate(lengths)]
        batch = {"input_ids": tokens * mask, "attention_mask": mask}
        rows = model.trunk(batch)[model.cuts[0]].clone() * mask[..., None]
        halves, whole = model.head(rows, torch.tensor(lengths)), model.full(batch)
    wanted = torch.cat(alone)
    return max(float((wanted - one).abs().max() / wanted.abs().max()) for one in (halves, whole))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("cut", ["2", "100%"])
@pytest.mark.parametrize(
    ("model_type", "fields"),
    [
        ("phi3", LONGROPE),
        ("minicpm3", LONGROPE),
        ("doge", {"keep_window_size": 12}),
        ("doge", {"keep_window_size": 23}),
        ("mistral", {"sliding_window": 17}),
        ("bert", {}),
    ],
)
def test_texts_on_both_sides_of_a_threshold_are_what_they_are_alone(model_type, fields, cut):
    fields = fields | ({} if model_type in ("bert", "minicpm3") else {"num_key_value_heads": 2})
    if model_type == "minicpm3":
        sizes = {"qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8, "q_lora_rank": 16, "kv_lora_rank": 16}
        fields |= sizes
    loaded = loaded_of(model_type, **fields)
    assert error(loaded, cut, [5, 40, 14, 48, 26, 19], 48) < 1e-4


@pytest.mark.filterwarnings("ignore")
def test_lengths_are_kept_apart_only_if_texts_may_be_that_long():
    """The recipe says so: rows of longer texts were mixed once, those of shorter ones are what they were."""
    loaded = loaded_of("phi3", num_key_value_heads=2, **LONGROPE)
    recipes = [split(loaded, ["2"], max_length=length, dtype="float32").recipe for length in (20, 21)]
    assert [recipe.extra for recipe in recipes] == [{}, {"lengths": "apart"}]


class Counting(transformers.BertForSequenceClassification):
    """A BERT whose last step looks at the padded length, after its blocks."""

    def forward(self, input_ids, **others):
        output = super().forward(input_ids=input_ids, **others)
        output.logits = output.logits + (input_ids.shape[1] > 30)
        return output


class Remembering(transformers.BertForSequenceClassification):
    """A BERT that is another one once a text has been longer than 30 tokens."""

    longest = 0

    def forward(self, input_ids, **others):
        self.longest = max(self.longest, input_ids.shape[1])
        output = super().forward(input_ids=input_ids, **others)
        output.logits = output.logits + (self.longest > 30)
        return output


def of_class(kind: type, **fields: Any) -> Loaded:
    config = tiny_config(num_labels=3, **fields)
    return Loaded("toy", kind(config).eval(), tiny_tokenizer())


def test_what_comes_after_the_blocks_is_proved_too():
    loaded = of_class(Counting)
    assert error(loaded, "100%", [5, 40, 31, 29], 48) < 1e-4


def test_a_model_that_remembers_a_long_text_is_refused():
    with pytest.raises(ModelError, match="changes what it makes of one of"):
        split(of_class(Remembering), ["2"], max_length=48, dtype="float32")
    split(of_class(Remembering), ["2"], max_length=30, dtype="float32")


def test_a_model_that_does_not_take_a_text_alone_is_refused_by_name():
    config = transformers.FunnelConfig(
        vocab_size=len(WORDS) + 5, block_sizes=[2, 2], d_model=32, n_head=4, d_head=8, d_inner=48, num_labels=3
    )
    with pytest.raises(ModelError, match="FunnelForSequenceClassification cannot be cut"):
        split(Loaded("funnel", of_config(config).eval(), tiny_tokenizer()), ["100%"], max_length=16, dtype="float32")


def test_thresholds_are_the_whole_numbers_of_the_config_however_deep():
    config = {"a": 12, "b": {"c": [40, 3, True], "d": 20.0, "e": 0.5}, "f": "30", "g": 49}
    assert thresholds(config, 48) == [12, 20, 40, 48]


def test_blocks_that_are_not_computed_prove_the_same(monkeypatch):
    """A large model is proved by one block of each kind."""
    monkeypatch.setattr("recycle_cli.models.text.lengths.WORK", 0)
    for model_type in ("bert", "modernbert", "gpt_neo", "t5", "qwen2"):
        loaded = random_model(model_type)
        assert split(loaded, ["1", "3"], max_length=32, dtype="float32").recipe.extra == {}
    loaded = of_class(Counting)
    assert error(loaded, "2", [5, 40, 31, 29], 48) < 1e-4
    # Padding reaches real tokens at any length (convolutions), and from 12 on.
    assert error(random_model("convbert"), "2", [5, 40, 31, 29], 48) < 1e-4
    assert error(loaded_of("doge", keep_window_size=12, num_key_value_heads=2), "2", [5, 40, 31, 29], 48) < 1e-4
    with pytest.raises(ModelError, match="changes what it makes of one of"):
        split(of_class(Remembering), ["2"], max_length=48, dtype="float32")


class Adding(nn.Module):
    """Adds to the rows, once a text is longer than 30 tokens, a thousandth of its first row."""

    def forward(self, rows):
        return rows + rows[:, :1] / 1000 if rows.shape[1] > 30 else rows


@pytest.mark.parametrize("number", range(3))
def test_a_block_that_is_like_no_other_is_computed(number, monkeypatch):
    monkeypatch.setattr("recycle_cli.models.text.lengths.WORK", 0)
    loaded = loaded_of("bert", num_hidden_layers=3)
    dense = loaded.model.bert.encoder.layer[number].output.dense
    loaded.model.bert.encoder.layer[number].output.dense = nn.Sequential(Adding(), dense)
    assert split(loaded, ["1"], max_length=48, dtype="float32").recipe.extra == {"lengths": "apart"}


def test_a_block_that_only_does_less_than_another_is_of_no_kind():
    """ModernBERT's first block has no norm of its own before its attention."""
    engine, _, _ = uncut(random_model("modernbert"), 32)
    kinds = engine.kinds
    assert kinds[0] is None
    assert kinds[1] == kinds[3] != kinds[2]
    assert (fewest(kinds, [2]), latest(kinds, 2), latest(kinds, 4)) == ({1, 2}, {2, 3}, {1, 2})
    engine, _, _ = uncut(random_model("t5"), 32)
    assert (fewest(engine.kinds, [2]), latest(engine.kinds, 2)) == ({0, 2}, {0, 2})


@pytest.mark.parametrize("model_type", ["bert", "deberta-v2", "gpt2", "t5", "xlm", "convbert"])
def test_the_passes_that_prove_a_cut_say_what_its_halves_use(model_type):
    engine, batch, first = uncut(random_model(model_type), 32)
    found, cuts = proved_states(engine, batch, first, range(len(engine.blocks) + 1))
    assert set(found.used) == (set() if found.engine.apart else set(cuts))
    apart = replace(found, used={})
    assert [ownership(found, batch, cut) for cut in cuts] == [ownership(apart, batch, cut) for cut in cuts]
