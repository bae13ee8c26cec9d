"""Where each row's piece lies in its text: aligned with what is prepared, truncation and pairs included."""

import pytest
import transformers

from recycle_cli.errors import ModelError
from recycle_cli.keys import Sample
from recycle_cli.models import SplitModel, load, split
from recycle_cli.models.text.tokens import TextInputs
from tests.models.architectures import random_model

PLAIN = Sample("0", {"text": "The method  uses earlier work."})
PAIR = Sample("1", {"text": "a new paper", "text_pair": "red cell data shows a result"})
LONG = Sample("2", {"text": "data " * 40, "text_pair": "good model"})


@pytest.fixture(scope="module")
def tiny() -> SplitModel:
    return split(random_model("bert"), ["2"], max_length=12, dtype="float32")


@pytest.fixture(scope="module")
def real(minilm) -> SplitModel:
    return split(load(minilm, labels=None), ["3"], max_length=24, dtype="float32")


def pieces(sample: Sample, spans) -> list[str]:
    texts = (sample.fields["text"], sample.fields.get("text_pair", ""), "")
    return [texts[field][first:last] for field, first, last in spans.tolist()]


def test_pieces_of_a_text(tiny):
    (spans,) = tiny.preprocessor.spans([PLAIN])
    assert spans.dtype == "int64"
    assert spans[:, 0].tolist() == [-1, 0, 0, 0, 0, 0, 0, -1]
    assert spans[[0, -1], 1:].tolist() == [[0, 0], [0, 0]]
    assert pieces(PLAIN, spans) == ["", "The", "method", "uses", "earlier", "work", ".", ""]


def test_pieces_of_a_pair_and_of_what_is_left_of_a_long_one(tiny):
    pair, long = tiny.preprocessor.spans([PAIR, LONG])
    assert pieces(PAIR, pair) == ["", "a", "new", "paper", "", "red", "cell", "data", "shows", "a", "result", ""]
    assert pair[:, 0].tolist() == [-1, 0, 0, 0, -1, 1, 1, 1, 1, 1, 1, -1]
    assert pieces(LONG, long) == ["", *["data"] * 7, "", "good", "model", ""]


@pytest.mark.parametrize("samples", [[PLAIN], [PAIR], [PLAIN, PAIR, LONG], [LONG, PLAIN] * 400])
def test_a_span_for_each_prepared_row(tiny, real, samples):
    for model in (tiny, real):
        prepared, spans = model.prepare(samples), model.preprocessor.spans(samples)
        assert [len(one) for one in spans] == [len(one["input_ids"]) for one in prepared]
        special = set(model.preprocessor.tokenizer.all_special_ids) - {model.preprocessor.tokenizer.unk_token_id}
        for one, inputs in zip(spans[:5], prepared[:5], strict=True):
            assert [number in special for number in inputs["input_ids"].tolist()] == (one[:, 0] == -1).tolist()


def test_minilms_word_pieces_are_found_in_the_text_as_it_was_written(real):
    sample = Sample("0", {"text": "Ünderstanding tokenization, isn't it?", "text_pair": "Ja — 東京"})
    (spans,) = real.preprocessor.spans([sample])
    ids = real.prepare([sample])[0]["input_ids"].tolist()
    tokens = real.preprocessor.tokenizer.convert_ids_to_tokens(ids)
    found = pieces(sample, spans)
    assert found[1:4] == ["Ünderstanding", "token", "ization"]
    for token, piece in zip(tokens, found, strict=True):
        if token.isascii() and not token.startswith("[") and piece.isascii():
            assert token.removeprefix("##") == piece.lower()


@pytest.mark.parametrize(("folder", "text"), [("gpt2", " two  words and\tmore "), ("metaspace", " two  words ")])
def test_white_space_is_no_part_of_a_piece(folder, text):
    """Byte-level and Metaspace tokenizers count the space before a word as the word's own."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    rules = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rules.pre_tokenizer = byte_level if folder == "gpt2" else pre_tokenizers.Metaspace()
    rules.decoder = decoders.ByteLevel()
    rules.train_from_iterator(
        ["two words and more two words and more"] * 9,
        trainers.BpeTrainer(vocab_size=400, initial_alphabet=byte_level.alphabet(), show_progress=False),
    )
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=rules)
    (spans,) = TextInputs(tokenizer, ("input_ids",), 32, 0, 1).spans([Sample("0", {"text": text})])
    words = [piece for piece in pieces(Sample("0", {"text": text}), spans) if piece]
    assert words[:2] == ["two", "words"]
    assert all(piece == piece.strip() for piece in words)


def test_a_slow_tokenizer_is_refused():
    slow = transformers.CanineTokenizer()
    assert not slow.is_fast
    with pytest.raises(ModelError, match=r"CanineTokenizer is a slow tokenizer.*expected a model with a fast one"):
        TextInputs(slow, ("input_ids",), 32, 0, 1).spans([PLAIN])
