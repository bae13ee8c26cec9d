"""What a head leaves out before its first block: found where it is safe to leave out, and put back where it is not."""

import pytest
import torch
from torch import Tensor, nn
from transformers.models.bert.modeling_bert import BertEmbeddings, BertLayer

from recycle_cli.errors import ModelError
from recycle_cli.models import Loaded, SplitModel, split
from recycle_cli.models.text.blocks import find_blocks
from recycle_cli.models.text.passes import run_head, run_trunk
from recycle_cli.models.text.selfcheck import check_batch
from recycle_cli.models.text.stem import Stem, find_stem, skipped
from tests.models.architectures import random_model

WIDTH = 8


class Embeddings(nn.Module):
    """Words and, where they are given, kinds, which come first."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.kinds = nn.Embedding(20, WIDTH), nn.Embedding(2, WIDTH)

    def forward(self, kinds: Tensor | None, ids: Tensor) -> Tensor:
        rows = self.words(ids)
        return rows if kinds is None else rows + self.kinds(kinds)


class Toy(nn.Module):
    """Embeddings, three blocks and a mean over tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = Embeddings()
        self.blocks = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.top = nn.Linear(WIDTH, 2)

    def embedded(self, ids: Tensor, kinds: Tensor | None) -> Tensor:
        return self.embeddings(kinds, ids)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None = None) -> tuple[Tensor]:
        rows = self.embedded(input_ids, token_type_ids)
        for block in self.blocks:
            rows = block(rows).tanh()
        return (self.top(rows.mean(1)),)


class Scaled(Toy):
    """What the first block is given is no module's output."""

    def embedded(self, ids: Tensor, kinds: Tensor | None) -> Tensor:
        return super().embedded(ids, kinds) * 3


class Written(Toy):
    """What the first block is given is the embeddings' output, but no longer what they gave."""

    def embedded(self, ids: Tensor, kinds: Tensor | None) -> Tensor:
        return super().embedded(ids, kinds).mul_(3)


class Lengthened(Toy):
    """Its ids are lengthened on the way, as Longformer's are to its window."""

    def embedded(self, ids: Tensor, kinds: Tensor | None) -> Tensor:
        longer = nn.functional.pad(ids, (0, -ids.shape[1] % 4))
        return self.embeddings(None, longer)


def batch_of(samples: int, tokens: int, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids, kinds = (torch.randint(most, (samples, tokens), generator=generator) for most in (20, 2))
    return {"input_ids": ids, "token_type_ids": kinds}


def stem_of(model: Toy) -> Stem | None:
    batch = batch_of(3, 7)
    return find_stem(model, find_blocks(model, batch).blocks, batch)


def from_rows(model: Toy, batch: dict[str, Tensor], stem: Stem | None) -> Tensor:
    """The output by way of the rows at 2; the head is told no token, and no kinds at all."""
    blocks = find_blocks(model, batch_of(3, 7)).blocks
    rows = run_trunk(model, blocks, batch, [2])[2]
    stand_in = {"input_ids": torch.ones_like(batch["input_ids"])}
    return run_head(model, blocks, stand_in, 2, rows, stem)[0]


@pytest.mark.parametrize(("kind", "found"), [(Toy, True), (Scaled, False), (Written, False)])
def test_a_stem_is_found_where_its_very_output_is_what_the_first_block_is_given(kind, found):
    model = kind()
    stem = stem_of(model)
    assert stem == (Stem(model.embeddings, 1) if found else None)
    with torch.no_grad():
        for batch in (batch_of(3, 7, seed=1), batch_of(2, 11, seed=2)):
            torch.testing.assert_close(from_rows(model, batch, stem), model(**batch)[0])


def test_a_stem_may_be_given_lengthened_ids():
    model = Lengthened()
    assert stem_of(model) == Stem(model.embeddings, 1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_may_change_their_type_after_the_stem_was_found(dtype):
    model, batch = Toy(), batch_of(2, 11)
    stem = stem_of(model)
    assert stem is not None
    model.to(dtype)
    with torch.no_grad():
        whole, halves = model(**batch)[0], from_rows(model, batch, stem)
    assert halves.dtype == dtype
    torch.testing.assert_close(halves, whole)


def test_without_the_argument_that_tells_the_shape_the_stem_computes():
    model, ids = Toy(), batch_of(2, 11)["input_ids"]
    expected = model.embeddings(None, ids)
    with skipped(stem_of(model), torch.zeros(2, 11, WIDTH)):
        assert not model.embeddings(None, ids).any()
        torch.testing.assert_close(model.embeddings(None, ids=ids), expected)
    torch.testing.assert_close(model.embeddings(None, ids), expected)


class LeavingEmbeddings(BertEmbeddings):
    """They leave behind what `made` makes of the ids."""

    def forward(self, input_ids, **others):
        self.left = self.made(input_ids)
        return super().forward(input_ids=input_ids, **others)


class LeavingLayer(BertLayer):
    """It leaves behind a part of what it is given."""

    def forward(self, hidden_states, *others, **named):
        self.left = hidden_states[..., :1]
        return super().forward(hidden_states, *others, **named)


def recalling(loaded: Loaded, leaving: nn.Module) -> Loaded:
    """The last block adds what a module has left behind."""
    last = loaded.model.bert.encoder.layer[-1]
    last.register_forward_hook(lambda module, args, output: output + leaving.left)
    return loaded


def leaving_embeddings(made) -> Loaded:
    loaded = random_model("bert")
    embeddings = loaded.model.bert.embeddings
    embeddings.__class__, embeddings.made = LeavingEmbeddings, made
    return recalling(loaded, embeddings)


def check(model: SplitModel, lengths: list[int]) -> None:
    """Head after trunk is the whole, whatever passed through the model before."""
    engine = model.full.__self__.engine
    batch, other = (check_batch(engine.model, engine.inputs, some, seed=5) for some in (lengths, [4, 6]))
    mask = batch["attention_mask"]
    with torch.no_grad():
        rows, whole = model.trunk(batch), model.full(batch)
        for cut in model.cuts:
            model.full(other)
            stored = rows[cut].clone().masked_fill(~mask.bool()[..., None], 0)
            torch.testing.assert_close(model.head_from(cut)(stored, mask.sum(1)), whole, atol=1e-5, rtol=0)


def test_a_stem_that_also_leaves_something_for_later_blocks_is_not_left_out():
    """What follows from the batch's shape alone, as positions do, the head makes again."""
    loaded = leaving_embeddings(lambda ids: torch.arange(ids.shape[1])[:, None] / 10)
    model = split(loaded, ["1", "3"], max_length=32, dtype="float32")
    assert model.full.__self__.engine.stem is None
    check(model, [5, 3])
    check(model, [12, 12, 1])


def test_a_stem_that_leaves_the_words_for_later_blocks_is_refused():
    loaded = leaving_embeddings(lambda ids: ids[..., None] / 10)
    with pytest.raises(ModelError, match="cannot be cut at 1: its blocks take more from the first 1 than their rows"):
        split(loaded, ["1"], max_length=32, dtype="float32")


def test_a_block_that_leaves_something_for_later_ones_is_refused():
    loaded = random_model("bert")
    first = loaded.model.bert.encoder.layer[0]
    first.__class__ = LeavingLayer
    with pytest.raises(ModelError, match="cannot be cut at 2: its blocks take more from the first 2 than their rows"):
        split(recalling(loaded, first), ["2"], max_length=32, dtype="float32")
