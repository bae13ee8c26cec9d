"""The contract of a split model, on a tiny BERT and on MiniLM."""

from dataclasses import replace

import pytest
import torch

from recycle_cli.errors import DataError, UsageError
from recycle_cli.keys import Sample
from recycle_cli.models import SplitModel, load, split

SAMPLES = [
    Sample("0", {"text": "the method uses earlier work"}),
    Sample("1", {"text": "we compare"}),
    Sample("2", {"text": "this paper extends a model of the cell with new data " * 3}),
]


def rows_and_lengths(model: SplitModel) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Rows as a store gives them back: nothing but zeros beyond each sample's own."""
    batch = model.collate(model.prepare(SAMPLES))
    mask = batch["attention_mask"]
    return {cut: rows.clone() * mask[..., None] for cut, rows in model.trunk(batch).items()}, mask.sum(1)


def test_head_after_trunk_is_the_whole_model(minilm):
    model = split(load(minilm, labels=["a", "b", "c"]), ["0", "1", "50%", "100%"], max_length=64, dtype="float32")
    rows, lengths = rows_and_lengths(model)
    assert model.cuts == ("0", "1", "3", "6")
    assert model.blocks == 6
    assert model.row_shape == (384,)
    full = model.full(model.collate(model.prepare(SAMPLES)))
    for cut in model.cuts[1:]:
        assert rows[cut].shape == (3, int(lengths.max()), 384)
        torch.testing.assert_close(model.head_from(cut)(rows[cut], lengths), full, atol=1e-5, rtol=0)
    torch.testing.assert_close(model.head(rows["6"], lengths), full, atol=1e-5, rtol=0)


def test_prepare_truncates_and_does_not_pad(tiny_bert):
    model = split(load(str(tiny_bert), labels=None), ["2"], max_length=9, dtype="float16")
    prepared = model.prepare([*SAMPLES, Sample("3", {"text": "new data", "text_pair": "old data of the cell"})][:3])
    assert [len(inputs["input_ids"]) for inputs in prepared] == [7, 4, 9]
    pair = model.prepare([Sample("3", {"text": "new data", "text_pair": "red green data"})])[0]
    assert pair["token_type_ids"].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


def test_a_window_is_tokenised_a_part_at_a_time(tiny_bert):
    """A tokenizer makes offsets, words and masks besides the ids: of a whole window they are most of the memory."""
    model = split(load(str(tiny_bert), labels=None), ["2"], max_length=32, dtype="float32")
    texts = [f"red {'data ' * (number % 7)}" for number in range(1300)]
    samples = [Sample(str(number), {"text": text}) for number, text in enumerate(texts)]
    inputs, calls = model.prepare.__self__, []

    def counted(texts, *rest, **options):
        calls.append(len(texts))
        return inputs.tokenizer(texts, *rest, **options)

    prepared = replace(inputs, tokenizer=counted).prepare(samples)
    assert [len(one["input_ids"]) for one in prepared] == [3 + number % 7 for number in range(1300)]
    assert sum(calls) == 1300
    assert max(calls) <= 512


def test_frozen_trunk_stays_in_eval_and_without_gradient(tiny_bert):
    model = split(load(str(tiny_bert), labels=["a", "b"]), ["2"], max_length=32, dtype="float32")
    model.freeze("2")
    model.model.train()
    trunk, head = model.trunk_parameters("2"), model.head_parameters("2")
    assert not any(one.requires_grad for _, one in trunk)
    assert all(one.requires_grad for _, one in head)
    assert not {name for name, _ in trunk} & {name for name, _ in head}
    modes = {name: module.training for name, module in model.model.named_modules()}
    assert not any(modes[name] for name in modes if name.startswith(("bert.embeddings", "bert.encoder.layer.0")))
    assert all(modes[name] for name in modes if name.startswith(("bert.encoder.layer.2", "classifier", "dropout")))


def test_trunk_is_in_eval_while_the_model_trains(tiny_bert):
    model = split(load(str(tiny_bert), labels=None), ["2"], max_length=32, dtype="float32")
    quiet, _ = rows_and_lengths(model)
    model.model.train()
    training, _ = rows_and_lengths(model)
    assert torch.equal(quiet["2"], training["2"])
    assert model.model.training


def test_head_trains_in_place_from_rows_of_the_trunk(tiny_bert):
    model = split(load(str(tiny_bert), labels=["a", "b"]), ["2"], max_length=32, dtype="float32")
    model.freeze("2")
    lengths = rows_and_lengths(model)[1]
    model.head(model.trunk(model.collate(model.prepare(SAMPLES)))["2"], lengths).sum().backward()
    assert all(one.grad is not None for _, one in model.head_parameters("2"))
    assert all(one.grad is None for _, one in model.trunk_parameters("2"))


def test_cut_zero_has_no_halves(tiny_bert):
    model = split(load(str(tiny_bert), labels=None), ["0"], max_length=32, dtype="float32")
    assert model.trunk_parameters("0") == []
    assert dict(model.recipe.cuts) == {}
    with pytest.raises(UsageError, match="cut 0 has no trunk"):
        model.trunk(model.collate(model.prepare(SAMPLES)))


def test_a_text_without_tokens_is_refused(tiny_gpt2):
    loaded = load(str(tiny_gpt2), labels=None)
    loaded.tokenizer.backend_tokenizer.post_processor = None
    model = split(loaded, ["2"], max_length=32, dtype="float32")
    with pytest.raises(DataError, match="record 7: its text gives no token"):
        model.prepare([Sample("7", {"text": " "})])


@pytest.mark.parametrize(("length", "message"), [(65, "places for 64 tokens"), (3, "expected at least 5")])
def test_a_length_out_of_range_is_refused(tiny_bert, length, message):
    with pytest.raises(UsageError, match=message):
        split(load(str(tiny_bert), labels=None), ["2"], max_length=length, dtype="float32")
