"""Windows of long texts: nothing is lost, none is too long, words stay whole, each shares tokens with the next."""

import random
from itertools import pairwise

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from recycle_cli.errors import DataError, UsageError
from recycle_cli.keys import Sample
from recycle_cli.models.text.tokens import TextInputs
from tests.conftest import WORDS, tiny_tokenizer

QUESTION = "a new paper"


def inputs(most, tokenizer=None):
    return TextInputs(tokenizer or tiny_tokenizer(), ("input_ids",), most, 0, 5)


def byte_pairs(pre_tokenizer):
    """A tokenizer that counts white space as the next word's, or as tokens of its own."""
    rules = Tokenizer(models.BPE())
    rules.pre_tokenizer = pre_tokenizer
    rules.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel().alphabet()
    rules.train_from_iterator(
        WORDS * 3, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    )
    return PreTrainedTokenizerFast(tokenizer_object=rules, pad_token="!", eos_token="!")


TOKENIZERS = {
    "words": tiny_tokenizer,
    "bytes": lambda: byte_pairs(pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "pieces": lambda: byte_pairs(pre_tokenizers.Metaspace()),
}


def lengths_of(some, samples):
    return [len(spans) for spans in some._untruncated.spans(samples)]


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("pair", [False, True])
def test_windows_cover_the_text_and_fit(tokenizer, pair):
    draw, most, stride = random.Random(0), 40, 12
    some = inputs(most, TOKENIZERS[tokenizer]())
    # A Metaspace tokenizer without a token for a line end drops it, and the places of what follows are then wrong.
    spaces = [" ", " ", "  ", " " if tokenizer == "pieces" else "\n"]
    for _ in range(30):
        words = draw.choices(WORDS, k=draw.randint(1, 90))
        text = "".join(word + draw.choice(spaces) for word in words)
        fields = {"text": QUESTION, "text_pair": text} if pair else {"text": text}
        own = "text_pair" if pair else "text"
        windows = some.windows(Sample("7", fields), stride)
        for window in windows:
            part = window.sample.fields[own]
            assert text[window.start : window.start + len(part)] == part
            assert window.sample.id == "7"
            assert not pair or window.sample.fields["text"] == QUESTION
        if len(windows) == 1:
            assert windows[0].sample.fields == fields
            assert lengths_of(some, [windows[0].sample])[0] <= most
            continue
        assert max(lengths_of(some, [window.sample for window in windows])) <= most
        found = [window.sample.fields[own].split() for window in windows]
        assert found[0] == words[: len(found[0])]
        assert found[-1] == words[-len(found[-1]) :]
        for (one, window), (_, following) in pairwise(zip(found, windows, strict=True)):
            end = window.start + len(window.sample.fields[own])
            assert window.start < following.start < end
            shared = text[following.start : end]
            specials = 2 if tokenizer == "words" else 0
            blank = 3  # white space at an end is a token of some of them, and left out
            assert lengths_of(some, [Sample("", {"text": shared})])[0] - specials >= stride - blank
            assert all(word in WORDS for word in one), "a word was cut"


def test_a_text_without_white_space_is_cut_between_tokens():
    text = "cell.data" * 30
    windows = inputs(20).windows(Sample("0", {"text": text}), 6)
    parts = [window.sample.fields["text"] for window in windows]
    assert parts[0] == "cell.data" * 0 + text[: len(parts[0])]
    rebuilt = parts[0]
    for window, part in zip(windows[1:], parts[1:], strict=True):
        rebuilt = rebuilt[: window.start] + part
    assert rebuilt == text


def test_long_words_are_cut_rather_than_that_windows_share_nothing():
    some, text = inputs(20), " ".join(["cell.data." * 5] * 4)
    windows = some.windows(Sample("0", {"text": text}), 6)
    for one, following in pairwise(windows):
        shared = text[following.start : one.start + len(one.sample.fields["text"])]
        assert lengths_of(some, [Sample("", {"text": shared})])[0] - 2 >= 6


def test_only_white_space_between_two_words_makes_no_empty_window():
    some = inputs(12, TOKENIZERS["bytes"]())
    windows = some.windows(Sample("0", {"text": "cell" + " " * 60 + "data"}), 2)
    assert [window.sample.fields["text"] for window in windows] == ["cell", "data"]


def test_a_pair_whose_first_text_leaves_no_room_is_refused():
    sample = Sample("0", {"text": "a new paper " * 3, "text_pair": "cell data " * 20})
    with pytest.raises(DataError, match=r"take 12 of the 16 tokens of --max-length, which leaves 4 for a window .* 5"):
        inputs(16).windows(sample, 5)


def test_a_stride_that_no_text_has_room_for_is_refused():
    with pytest.raises(UsageError, match=r"--stride 14: a window of 16 tokens \(--max-length\) has room for 14"):
        inputs(16).windows(Sample("0", {"text": "cell"}), 14)


def test_by_default_a_third_of_the_tokens_is_shared():
    text = "cell data " * 40
    assert inputs(32).windows(Sample("0", {"text": text}), None) == inputs(32).windows(Sample("0", {"text": text}), 10)
