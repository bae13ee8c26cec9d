"""What a tokenizer gives and the model takes reaches the model, or is refused by name."""

import json

import pytest
import torch
import transformers

from recycle_cli.errors import DataError, ModelError
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


def test_columns_and_rows_of_tapas_reach_it_and_a_text_without_room_is_named(tmp_path):
    """Its tokenizer cuts no text: it refuses one that is too long, whole batches with it."""
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[EMPTY]", *WORDS]))
    config = tiny_config("tapas", num_labels=3, vocab_size=len(WORDS) + 6)
    loaded = Loaded(
        "tapas", stirred(of_config(config)).eval(), transformers.TapasTokenizer(str(tmp_path / "vocab.txt"))
    )
    plain, ours = both(loaded)
    for one in ours:
        torch.testing.assert_close(one, plain, atol=1e-4, rtol=1e-4)
    model = split(loaded, ["2"], max_length=16, dtype="float32")
    with pytest.raises(
        DataError, match=r"record 7: its text cannot be turned into tokens \(Could not encode the query"
    ):
        model.prepare([*SAMPLES, Sample("7", {"text": "data " * 40})])


def test_layoutlmv3_wants_boxes_beside_a_text(tmp_path):
    characters = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *"abcdefghijklmnopqrstuvwxyz"]
    vocabulary = {token: number for number, token in enumerate(characters)}
    sizes = {"coordinate_size": 4, "shape_size": 8, "input_size": 32, "patch_size": 16}
    model = of_config(tiny_config("layoutlmv3", **sizes)).eval()
    loaded = Loaded("layoutlmv3", model, transformers.LayoutLMv3Tokenizer(vocab=vocabulary, merges=[]))
    with pytest.raises(ModelError, match=r"\(LayoutLMv3Tokenizer\) does not take a text alone \(You must provide corr"):
        split(loaded, ["2"], max_length=32, dtype="float32")


def test_canine_of_its_own_files_is_refused_by_name(tmp_path):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    model = of_config(transformers.CanineConfig(**sizes, num_hash_buckets=64)).eval()
    with pytest.raises(
        ModelError, match="CanineForSequenceClassification cannot be cut: its rows pass through several"
    ):
        split(Loaded("canine", model, transformers.CanineTokenizer()), ["1"], max_length=32, dtype="float32")


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
