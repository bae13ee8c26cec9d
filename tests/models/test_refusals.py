"""No architecture is silently wrong: what cannot be cut is refused by name, with the reason."""

import pytest
import torch
import transformers

from recycle_cli.errors import DataError, ModelError
from recycle_cli.keys import Sample
from recycle_cli.models import Loaded, split
from tests.conftest import WORDS, tiny_config, tiny_tokenizer
from tests.models.architectures import of_config, random_model

VOCABULARY = len(WORDS) + 5
SMALL = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 3, "num_heads": 4, "vocab_size": VOCABULARY}

REFUSED = {
    "bart": (
        lambda: tiny_config("bart", encoder_layers=3, decoder_layers=3, encoder_ffn_dim=48, decoder_ffn_dim=48),
        "BartForSequenceClassification.* its decoder reads the text's tokens again",
    ),
    "t5": (lambda: transformers.T5Config(**SMALL), "T5ForSequenceClassification.* its decoder reads"),
    "funnel": (
        lambda: transformers.FunnelConfig(
            vocab_size=VOCABULARY, block_sizes=[2, 2], d_model=32, n_head=4, d_head=8, d_inner=48
        ),
        "FunnelForSequenceClassification cannot be cut",
    ),
    "canine": (lambda: tiny_config("canine"), "CanineForSequenceClassification.* several lists of modules"),
    "big_bird": (
        lambda: tiny_config("big_bird"),
        'BigBird.* a short text changes the model itself for all that follow; write "attention_type": "original_full"',
    ),
    "perceiver": (lambda: tiny_config("perceiver", d_model=32, d_latents=16), "PerceiverForSequenceClassification"),
}


@pytest.mark.parametrize("model_type", REFUSED)
def test_refused_by_name_with_the_reason(model_type):
    config, message = REFUSED[model_type]
    loaded = Loaded(model_type, of_config(config()).eval(), tiny_tokenizer())
    with pytest.raises(ModelError, match=message) as caught:
        split(loaded, ["1"], max_length=16, dtype="float32")
    assert "\n" not in str(caught.value)


class Remembering(transformers.BertForSequenceClassification):
    """A BERT whose last block also looks at the embeddings: no rows at a cut can tell it those."""

    def __init__(self, config):
        super().__init__(config)
        self.bert.embeddings.register_forward_hook(self._remember)
        self.bert.encoder.layer[-1].register_forward_hook(self._recall)

    def _remember(self, module, args, output):
        self.words = output

    def _recall(self, module, args, output):
        return output + 1e-3 * self.words


@pytest.mark.parametrize("cut", ["1", "2", "3"])
def test_a_block_that_looks_past_the_cut_is_caught(cut):
    loaded = Loaded("remembering", Remembering(tiny_config(num_labels=2)).eval(), tiny_tokenizer())
    with pytest.raises(ModelError, match=f"Remembering cannot be cut at {cut}"):
        split(loaded, [cut], max_length=16, dtype="float32")


def test_a_model_that_is_not_deterministic_is_caught():
    loaded = random_model("bert")
    loaded.model.classifier.register_forward_hook(lambda module, args, output: output + torch.rand_like(output))
    with pytest.raises(ModelError, match="cannot be cut"):
        split(loaded, ["1"], max_length=16, dtype="float32")


def test_a_text_that_ends_in_padding_is_refused_where_it_is_pooled_by_it():
    """A decoder finds a text's last token by the padding id; with the end of text as padding that token is lost."""
    loaded = random_model("gpt2")
    model = split(loaded, ["2"], max_length=16, dtype="float32")
    text = {"text": "good new data [PAD]"}
    loaded.tokenizer.backend_tokenizer.post_processor = None
    with pytest.raises(DataError, match="record 5: its last token is the padding token"):
        model.prepare([Sample("5", text)])
    assert model.prepare([Sample("6", {"text": "good [PAD] data"})])


def test_padding_inside_a_text_is_no_matter_to_an_encoder():
    model = split(random_model("bert"), ["2"], max_length=16, dtype="float32")
    assert model.prepare([Sample("5", {"text": "good new data [PAD]"})])


@pytest.mark.parametrize("model_type", ["convbert", "bert"])
def test_rows_do_not_depend_on_the_batch(model_type):
    """ConvBERT lets padding reach real tokens: its lengths are kept apart, as in a pipeline of one text at a time."""
    model = split(random_model(model_type), ["2"], max_length=32, dtype="float32")
    texts = ["good", "the method uses earlier work of this paper", "new data"]
    prepared = model.prepare([Sample(str(number), {"text": text}) for number, text in enumerate(texts)])
    together, full = model.trunk(model.collate(prepared))["2"], model.full(model.collate(prepared))
    for row, one in enumerate(prepared):
        alone = model.collate([one])
        length = len(one["input_ids"])
        torch.testing.assert_close(together[row, :length], model.trunk(alone)["2"][0], atol=1e-5, rtol=0)
        torch.testing.assert_close(full[row], model.full(alone)[0], atol=1e-5, rtol=0)


def test_albert_gives_each_block_its_own_weights_and_stays_an_albert(tmp_path):
    loaded = random_model("albert")
    ids = torch.tensor([[2, 7, 8, 9, 3]])
    before = loaded.model(ids).logits
    model = split(loaded, ["2"], max_length=16, dtype="float32")
    torch.testing.assert_close(loaded.model(ids).logits, before)
    model.freeze("2")
    batch = model.collate(model.prepare([Sample("0", {"text": "good"})]))
    model.head(model.trunk(batch)["2"], batch["attention_mask"].sum(1)).sum().backward()
    with torch.no_grad():
        for _, parameter in model.head_parameters("2"):
            parameter -= 0.1 * parameter.grad if parameter.grad is not None else 0
    loaded.model.save_pretrained(tmp_path)
    again = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert type(again).__name__ == "AlbertForSequenceClassification"
    torch.testing.assert_close(again.eval()(ids).logits, loaded.model(ids).logits)
    assert not torch.allclose(loaded.model(ids).logits, before)


class Shaking(transformers.BertForSequenceClassification):
    """A BERT that draws random numbers in eval, from a generator that it keeps, in its embeddings or in its pooling."""

    where = "bert.embeddings"

    def shake(self):
        generator = torch.Generator().manual_seed(0)
        module = self.get_submodule(self.where)
        module.generator = generator
        module.register_forward_hook(
            lambda module, args, rows: rows + 0.1 * torch.rand(rows.shape, generator=generator)
        )
        return self.eval()


@pytest.mark.parametrize("where", ["bert.embeddings", "bert.encoder.layer.1.output", "bert.pooler"])
@pytest.mark.parametrize("cut", ["0", "2", "100%"])
def test_a_model_that_draws_random_numbers_in_eval_is_refused_in_these_words(where, cut):
    model = Shaking(tiny_config(num_labels=3))
    model.where = where
    with pytest.raises(ModelError, match="Shaking cannot be cut: in eval, too, it draws random numbers"):
        split(Loaded("shaking", model.shake(), tiny_tokenizer()), [cut], max_length=16, dtype="float32")
