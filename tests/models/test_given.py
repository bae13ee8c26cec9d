"""What a tokenizer gives and the model takes reaches the model, or is refused by name."""

import json

import pytest
import torch
import transformers

from recycle_cli.errors import ModelError
from recycle_cli.keys import Sample
from recycle_cli.models import Loaded, split
from tests.conftest import WORDS, tiny_config, tiny_tokenizer
from tests.models.architectures import of_config, random_model, stirred

TEXTS = ["good new data of the cell", "we", "this paper extends earlier work"]
SAMPLES = [Sample(str(number), {"text": text}) for number, text in enumerate(TEXTS)]


def both(loaded: Loaded) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The plain model's outputs for each text alone, and ours: whole, and head after trunk."""
    model = split(loaded, ["2"], max_length=32, dtype="float32")
    batch = model.collate(model.prepare(SAMPLES))
    with torch.no_grad():
        plain = torch.cat([loaded.model(**loaded.tokenizer(text, return_tensors="pt"))[0] for text in TEXTS])
        rows = model.trunk(batch)["2"].clone()
        return plain, [model.full(batch), model.head(rows, batch["attention_mask"].sum(1))]


def test_shapes_and_sounds_of_rocbert_reach_it(tmp_path):
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    files = [tmp_path / name for name in ("vocab.txt", "word_shape.json", "word_pronunciation.json")]
    files[0].write_text("\n".join(tokens))
    files[1].write_text(json.dumps({token: number % 7 for number, token in enumerate(tokens)}))
    files[2].write_text(json.dumps({token: number % 5 for number, token in enumerate(tokens)}))
    sizes = {"shape_vocab_size": 9, "pronunciation_vocab_size": 9, "shape_embed_dim": 8, "pronunciation_embed_dim": 8}
    model = stirred(of_config(tiny_config("roc_bert", num_labels=3, **sizes))).eval()
    plain, ours = both(Loaded("roc_bert", model, transformers.RoCBertTokenizer(*map(str, files))))
    for one in ours:
        torch.testing.assert_close(one, plain, atol=1e-4, rtol=1e-4)


class Wide(transformers.BertForSequenceClassification):
    """A BERT with three numbers more for each token, in the manner of Tapas."""

    def forward(self, input_ids, attention_mask=None, token_type_ids=None, places=None, **others):
        table = torch.linspace(-1, 1, 3 * 32).reshape(3, 32)
        words = self.bert.embeddings.word_embeddings(input_ids)
        words = words if places is None else words + places.float() @ table
        return super().forward(
            inputs_embeds=words, attention_mask=attention_mask, token_type_ids=token_type_ids, **others
        )


class Placing(transformers.PreTrainedTokenizerFast):
    """Gives `places`, made by `made` from the ids of a text."""

    made = staticmethod(lambda ids: [[number % 3, number % 2, 1] for number in ids])

    def __call__(self, *args, **kwargs):
        encoded = super().__call__(*args, **kwargs)
        ids = encoded["input_ids"]
        if isinstance(ids, torch.Tensor):
            encoded["places"] = torch.tensor([self.made(one) for one in ids.tolist()])
        else:
            encoded["places"] = [self.made(one) for one in ids]
        return encoded


def placing(made=None) -> Placing:
    tokenizer = tiny_tokenizer()
    tokenizer.__class__ = Placing if made is None else type("Placing", (Placing,), {"made": staticmethod(made)})
    return tokenizer


def test_several_numbers_a_token_reach_the_model():
    plain, ours = both(Loaded("wide", Wide(tiny_config(num_labels=3)).eval(), placing()))
    for one in ours:
        torch.testing.assert_close(one, plain, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("made", [lambda ids: [1], lambda ids: [[0.5]] * len(ids), lambda ids: 7])
def test_what_is_no_whole_number_a_token_is_refused_by_name(made):
    loaded = Loaded("wide", Wide(tiny_config(num_labels=3)).eval(), placing(made))
    with pytest.raises(ModelError, match="gives places of another form"):
        split(loaded, ["2"], max_length=32, dtype="float32")


def test_a_tokenizer_that_takes_no_text_is_refused_by_name():
    def no_text(ids):
        raise ValueError("You must provide corresponding bounding boxes")

    with pytest.raises(ModelError, match=r"does not take a text alone \(You must provide corresponding bounding"):
        split(Loaded("wide", random_model("bert").model, placing(no_text)), ["2"], max_length=32, dtype="float32")
